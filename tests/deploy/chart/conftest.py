"""Every scenario of ci/, rendered once a process."""

import pytest

from tests.support.chart.render import SCENARIOS, Rendered, scenario


@pytest.fixture(params=SCENARIOS)
def release(request: pytest.FixtureRequest) -> Rendered:
    """One scenario's release after another."""
    return scenario(request.param)
