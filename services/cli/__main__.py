"""`kalshi-data VERB ...` and `python -m services.cli VERB ...`."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from libs.runtime.version import build_info


class Verb(NamedTuple):
    """Where a verb lives: a module with `main(argv) -> exit status`."""

    module: str
    summary: str


VERBS = {
    "local": Verb("services.local.command", "run the whole platform on this machine"),
    "migrate": Verb("services.migrate.command", "bring a database's schema to this version"),
    "status": Verb("services.status.command", "show what a running platform is doing"),
    "gaps": Verb(
        "services.coverage.gaps_command", "show who listened, and what nobody heard and why"
    ),
    "verdict": Verb(
        "services.local.verdict_command",
        "hold what was captured against what the simulated exchange published",
    ),
    "coverage": Verb(
        "services.coverage.coverage_command",
        "show facts by who delivered them, lag and share listened; draw them over time",
    ),
    "readmit": Verb(
        "services.deduplicator.readmit", "let a quarantined gatherer back into the merge"
    ),
    "archive": Verb(
        "services.archiver.command",
        "list, prove and write again the Parquet archive; bring production back from it",
    ),
    "doctor": Verb(
        "services.doctor.command", "ask an exchange whether capturing from it will work"
    ),
    "rollout": Verb("services.rollout.command", "upgrade a release zone by zone"),
    "volume": Verb("services.rollout.volume_command", "grow the volume of a database that runs on"),
    "crds": Verb(
        "services.operator.crds_command",
        "bring a cluster's definition of a Gatherer to this version",
    ),
    "config": Verb("services.cli.config_command", "show the configuration a service would use"),
    "run": Verb(
        "services.cli.run_command", "be one service: kalshi-data run SERVICE --config FILE"
    ),
}
READER_LEFT, USAGE = 1, 2
LASTING = frozenset({"local", "run"})
"""Verbs that do more than print: there a broken pipe may be another one than standard output's."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that `argv` (default: sys.argv) names.

    Returns:
        The verb's exit status; 2 for a verb that does not exist; 1 when who reads the output has left.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in VERBS:
        _parser().parse_args(arguments)
        _parser().print_help()
        return USAGE
    verb = VERBS[arguments[0]]
    command = cast("Callable[[list[str]], int]", importlib.import_module(verb.module).main)
    try:
        status = command(arguments[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        if arguments[0] in LASTING:
            raise
        # Whoever read (`| head`) has left: what is still in the buffer goes nowhere, without a word at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kalshi-data",
        description="Redundant, provable, real-time capture of every Kalshi market.",
        epilog="kalshi-data VERB --help says more about a verb.",
    )
    parser.add_argument("--version", action="version", version=str(build_info()))
    verbs = parser.add_subparsers(metavar="VERB")
    for name, verb in VERBS.items():
        verbs.add_parser(name, help=verb.summary, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
