"""What every test stands on: no setting of the developer's own shell, and Hypothesis without a clock."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

# Deadlines measure the machine, which tests share with others; examples are few enough for the whole suite's ten minutes.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=50)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long in front, so that no worker is left alone with it at the end."""
    items.sort(
        key=lambda item: [
            item.get_closest_marker(name) is None for name in ("soak", "scenario", "slow")
        ]
    )


@pytest.fixture(autouse=True, scope="session")
def no_settings_of_the_shell() -> Iterator[None]:
    """Variables KALSHI_DATA_*, an OTLP endpoint and proxies of the shell must not reach a test or its child processes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("KALSHI_DATA_", "OTEL_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        yield
