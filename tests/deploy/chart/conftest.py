"""Every scenario of ci/, rendered once a process; a Kubernetes API."""

import pytest

from tests.support.chart.render import SCENARIOS, Rendered, scenario
from tests.support.kube_api import kube_api

__all__ = ["kube_api", "release"]


@pytest.fixture(params=SCENARIOS)
def release(request: pytest.FixtureRequest) -> Rendered:
    """One scenario's release after another."""
    return scenario(request.param)
