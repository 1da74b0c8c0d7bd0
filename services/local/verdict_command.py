"""`kalshi-data verdict`: hold a running platform's production against what the simulated exchange published.

It reads the simulator's journals over its control port and production, and writes nothing. What is judged is a span that
is over: by default from the exchange's beginning to half a minute ago, so that the merge has had its time.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from libs.marketdata.listening import Span
from libs.marketdata.units import SECOND
from libs.runtime.clock import SystemClock
from libs.runtime.last_run import last_run_config
from libs.runtime.sections import (
    DEDUPLICATOR_FILE,
    CaptureSettings,
    GathererSource,
    StoreSettings,
)
from libs.runtime.settings import ConfigInvalid, load_settings
from libs.store.errors import StoreError
from services.local.case import Case
from services.local.judge import judge_case
from services.local.report import EXIT_FAILS, EXIT_HOLDS, print_verdict
from services.local.troubles import Trouble
from services.local.verdict import Gap, Verdict

EXIT_UNUSABLE = 2
AGO_S = 30.0
ASK_S_MAX = 60.0
WIDTH = 150
EXAMPLES = 5


@dataclass(frozen=True)
class VerdictSettings:
    """What `verdict` reads from config/deduplicator.yaml, the one file that names every database."""

    gatherers: tuple[GathererSource, ...]
    """The zones."""
    production: StoreSettings
    """The production database."""


def main(argv: Sequence[str]) -> int:
    """Take the verdict; return 0 when it holds, 1 when it does not, 2 when it could not be taken."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load_settings(
            VerdictSettings, arguments.config or last_run_config(), foreign=DEDUPLICATOR_FILE
        ).value
        verdict = asyncio.run(_take(settings, arguments))
    except ConfigInvalid as error:
        sys.stderr.writelines(f"verdict: {fault}\n" for fault in error.faults)
        return EXIT_UNUSABLE
    except (StoreError, OSError) as error:
        sys.stderr.write(f"verdict: {type(error).__name__}: {error}\n")
        return EXIT_UNUSABLE
    if arguments.json:
        json.dump(document(verdict), sys.stdout, default=str)
        sys.stdout.write("\n")
        return EXIT_HOLDS if verdict.holds else EXIT_FAILS
    return print_verdict(verdict, Console(width=None if sys.stdout.isatty() else WIDTH))


def document(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as plain values; times in microseconds."""

    def some(gaps: Sequence[Gap]) -> dict[str, Any]:
        ordered = sorted(gaps, key=lambda gap: gap.from_ts - gap.to_ts)
        return {"count": len(gaps), "longest": [list(gap) for gap in ordered[:EXAMPLES]]}

    return {
        "holds": verdict.holds,
        "reasons": verdict.reasons(),
        "tables": {table.table: asdict(table) for table in verdict.tables},
        "zones": {zone.name: asdict(zone) for zone in verdict.zones},
        "unplanned_gaps": {name: some(gaps) for name, gaps in verdict.unplanned_gaps.items()},
        "loose_gaps": {name: some(gaps) for name, gaps in verdict.loose_gaps.items()},
        "snapshots": [verdict.snapshots_equal, verdict.snapshots],
        "books": [
            verdict.books_compared - len(verdict.books_differing),
            verdict.books_compared,
            verdict.books_unproved,
        ],
    }


async def _take(settings: VerdictSettings, arguments: argparse.Namespace) -> Verdict:
    """Fetch the journals into a folder that is removed again, and judge.

    Raises:
        StoreError: production is away or refuses.
        OSError: the simulator does not answer.
    """
    end = arguments.to or SystemClock().now() - int(AGO_S * SECOND)
    keys = {source.zone: arguments.key_id.format(zone=source.zone) for source in settings.gatherers}
    with tempfile.TemporaryDirectory(prefix="verdict-") as folder:
        journals = {name: Path(folder, f"{name}.jsonl") for name in ("market", "session")}
        for name, path in journals.items():
            await asyncio.to_thread(_fetch, f"{arguments.exchange}/control/journal/{name}", path)
        epoch = await asyncio.to_thread(_epoch, arguments.exchange, Path(folder, "state.json"))
        case = Case(
            market=journals["market"],
            session=journals["session"],
            production=settings.production.target(),
            keys=keys,
            wants=CaptureSettings(combos=arguments.combos).capture_filter().may_want,
            done=[
                Trouble("done", keys[zone], "", *span)
                for zone, span in (*arguments.away, *arguments.trouble)
            ],
            absences=dict(arguments.away),
            span=(max(arguments.since, epoch), end),
            epoch=epoch,
        )
        return await judge_case(case)


def _epoch(exchange: str, path: Path) -> int:
    """Return when the exchange began."""
    _fetch(f"{exchange}/control/state", path)
    return int(json.loads(path.read_bytes())["epoch"])


def _fetch(url: str, path: Path) -> None:
    """Copy what a URL answers into a file. Raises OSError, with the URL in its words."""
    try:
        with urllib.request.urlopen(url, timeout=ASK_S_MAX) as answer, path.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, TimeoutError) as error:
        raise OSError(f"{url}: {error}") from error


def _zone_span(text: str) -> tuple[str, Span]:
    zone, _, span = text.partition("=")
    start, _, end = span.partition("..")
    if not zone or not start.isdecimal() or not end.isdecimal() or int(start) >= int(end):
        raise argparse.ArgumentTypeError(f"{text}: ZONE=FROM..TO, microseconds since 1970")
    return zone, (int(start), int(end))


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text}: an address such as http://127.0.0.1:8700")
    return text.rstrip("/")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalshi-data verdict", description=__doc__)
    add = parser.add_argument
    config = (
        "the deduplicator's YAML file; default: KALSHI_DATA_CONFIG, else that of the last local run"
    )
    add("--config", type=Path, default=os.environ.get("KALSHI_DATA_CONFIG"), help=config)
    exchange = "the simulator (default http://127.0.0.1:8700)"
    add("--exchange", type=_address, default="http://127.0.0.1:8700", help=exchange)
    add(
        "--from",
        dest="since",
        type=int,
        default=0,
        metavar="US",
        help="the span's beginning, microseconds since 1970",
    )
    add("--to", type=int, default=0, metavar="US", help=f"its end; default: {AGO_S:.0f} s ago")  # fmt: skip
    key_id = "the zones' API key ids at the simulator (default %(default)s)"
    add("--key-id", default="simulated-key-{zone}", metavar="TEMPLATE", help=key_id)
    add("--combos", action="store_true", help="combos are captured, too")
    span: dict[str, Any] = {
        "type": _zone_span,
        "action": "append",
        "default": [],
        "metavar": "ZONE=FROM..TO",
    }
    add("--away", help="a zone was away: its gaps must show it", **span)
    trouble = "something was done to a zone that may have cost it rows it had heard"
    add("--trouble", help=trouble, **span)
    add("--json", action="store_true", help="as JSON instead of tables")
    return parser
