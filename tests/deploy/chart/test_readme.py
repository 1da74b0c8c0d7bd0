"""The chart's README says what values.yaml says."""

from tests.support.chart.readme import README, keys, with_table
from tests.support.chart.render import SCENARIOS


def test_the_table_of_keys_is_that_of_the_values() -> None:
    """`python -m tests.support.chart` writes it anew."""
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text
    rows = {key: (default, meaning) for key, default, meaning in keys()}
    assert rows["production.port"][0] == "`5432`"
    assert rows["zoneDefaults.database.storage.usedPercentMax"][1].startswith("Share of the volume")
    assert "| `rollout.released` | `null` |" in text


def test_every_scenario_is_introduced() -> None:
    """Each values file of ci/ has its line."""
    text = README.read_text(encoding="utf-8")
    assert [name for name in SCENARIOS if f"| `{name}` |" not in text] == []
