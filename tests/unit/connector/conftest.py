"""What slots share, without a network."""

import pytest

from libs.exchange.transport import TransportSettings
from libs.flow.batch import Limits
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.telemetry.metrics import Metrics
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.slot import Wiring


@pytest.fixture
def wiring() -> Wiring:
    return Wiring(
        url="", signer=lambda: None, clock=SystemClock(), metrics=Metrics("a"), outlets=_outlets(), pipelines={},
        session=SessionSettings(), transport=TransportSettings(), backoff_s_min=1.0, backoff_s_max=300.0,
        silence_s_max=30.0, was_connected=True,
    )  # fmt: skip


def _outlets() -> Outlets:
    return Outlets(dict.fromkeys(Family, Limits(1000, 1 << 30, 50_000)), 1 << 20)
