"""A key pair made once, and simulators on free ports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.simulator.settings import SimulatorSettings
from tests.support.keys import KeyPair, make_key

SHARED = Path(__file__).parents[3] / ".." / "shared" / "kalshi"


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A key the simulator knows."""
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A key the simulator does not know."""
    return make_key(tmp_path_factory.mktemp("keys"), "stranger")


@pytest.fixture
def settings(key: KeyPair) -> Callable[..., SimulatorSettings]:
    """Settings of a small lively exchange on a free port."""

    def make(**changes: Any) -> SimulatorSettings:
        values: dict[str, Any] = {
            "port": 0,
            "keys": (key.settings,),
            "markets": 20,
            "rate": 400.0,
            "quiet_ms": 50,
            "new_market_every_s": 0.5,
        }
        return SimulatorSettings(**(values | changes))

    return make


@pytest.fixture
def recorded() -> Path:
    """The folder of real recordings; skips where there is none."""
    folder = SHARED / "recorded"
    if not folder.is_dir():
        pytest.skip("no recordings beside the repository")
    return folder


@pytest.fixture
def specs() -> Path:
    """The folder of the exchange's specifications; skips where there is none."""
    folder = SHARED / "specs"
    if not folder.is_dir():
        pytest.skip("no specifications beside the repository")
    return folder
