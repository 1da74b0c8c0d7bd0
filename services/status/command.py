"""`kalshi-data status`: what a running platform is doing, read from its databases, each of which may be away."""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from libs.runtime.clock import SystemClock
from libs.runtime.last_run import last_run_config
from libs.runtime.settings import ConfigInvalid
from services.status.ask import ask_all
from services.status.bundle import collect, write_bundle
from services.status.settings import Asked, read_settings
from services.status.show import show

EXIT_OK, EXIT_AWAY, EXIT_CONFIG = 0, 1, 2
PIPE_WIDTH = 160
STANDARD_OUTPUT = "-"


def main(argv: list[str]) -> int:
    """Print; return 0, 1 when a database is away or the bundle cannot be written, 2 when the configuration is not usable."""
    arguments = _parser().parse_args(argv)
    config = arguments.config or last_run_config()
    try:
        asked = read_settings(config)
    except ConfigInvalid as error:
        sys.stderr.write(
            "status: the configuration is not usable (--config FILE names a zone's or the deduplicator's):\n"
        )
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        return EXIT_CONFIG
    if arguments.bundle is not None:
        return _bundle(asked, arguments.bundle)
    found = asyncio.run(ask_all(asked))
    if arguments.json:
        json.dump(found, sys.stdout, indent=1, default=str)
        sys.stdout.write("\n")
    else:
        show(found, Console(width=None if sys.stdout.isatty() else PIPE_WIDTH))
    return _exit_status(found)


def _bundle(asked: Asked, to: str) -> int:
    """Write the bundle to a file that only its owner may read, or to standard output."""
    now = SystemClock().now()
    found, members = asyncio.run(collect(asked, os.environ, now))
    try:
        if to == STANDARD_OUTPUT:
            write_bundle(sys.stdout.buffer, members, now)
        else:
            private = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(private, "wb") as file:
                write_bundle(file, members, now)
    except OSError as error:
        sys.stderr.write(f"status: {to} cannot be written: {error.strerror}\n")
        return EXIT_AWAY
    name = "standard output" if to == STANDARD_OUTPUT else to
    sys.stderr.write(f"status: {len(members)} files in {name}; passwords and keys are not in it\n")
    return _exit_status(found)


def _exit_status(found: dict[str, dict[str, Any]]) -> int:
    return EXIT_AWAY if any("error" in entry for entry in found.values()) else EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalshi-data status", description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="a zone's YAML file (that zone) or the deduplicator's (everything); default: KALSHI_DATA_CONFIG, else that"
        " of the last local run",
    )
    parser.add_argument("--json", action="store_true", help="as JSON instead of tables")
    parser.add_argument(
        "--bundle",
        metavar="FILE",
        help="write a tar.gz for support instead (-: to standard output): configuration without secrets, processes, plan,"
        " last gaps, versions",
    )
    return parser
