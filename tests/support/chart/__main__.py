"""Writes what is generated beside the chart: the services' settings in values.schema.json, the table of keys in README.md."""

import json

from tests.support.chart.readme import README, with_table
from tests.support.chart.render import CHART
from tests.support.chart.settings_schema import definitions

SCHEMA = CHART / "values.schema.json"


def main() -> None:
    """Rewrite both in place."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["definitions"] |= definitions()
    SCHEMA.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
