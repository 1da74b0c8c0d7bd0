"""`kalshi-data config show`: every setting of a service, its value with secrets hidden, and who set it."""

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from libs.runtime.settings import ConfigInvalid, describe, load_settings
from services.cli.catalogue import SERVICES, settings_class

EXIT_CONFIG = 2
_PIPE_WIDTH = 200


def main(argv: list[str]) -> int:
    """Parse and run.

    Returns:
        0, or 2 when the configuration is not usable; all faults are then on standard error.
    """
    arguments = _parser().parse_args(argv)
    service: str = arguments.service
    try:
        loaded = load_settings(
            settings_class(service), arguments.config, foreign=SERVICES[service].sections
        )
    except ConfigInvalid as error:
        sys.stderr.write(f"{service}: the configuration is not usable:\n")
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        return EXIT_CONFIG
    rows = describe(loaded)
    if arguments.json:
        entries = [{"key": key, "value": value, "source": source} for key, value, source in rows]
        json.dump(entries, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _print_table(rows)
    return 0


def _print_table(rows: list[tuple[str, str, str]]) -> None:
    table = Table("key", "value", "source", box=None, pad_edge=False)
    for key, value, source in rows:
        table.add_row(key, value, source, style="dim" if source == "default" else None)
    Console(
        width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, highlight=False
    ).print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalshi-data config")
    show = parser.add_subparsers(metavar="show", required=True).add_parser(
        "show", help="print every setting, its value (secrets hidden) and its source"
    )
    show.add_argument("--service", required=True, choices=sorted(SERVICES))
    show.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="the YAML file; default: KALSHI_DATA_CONFIG, else the environment alone",
    )
    show.add_argument("--json", action="store_true", help="as JSON instead of a table")
    return parser
