"""`kalshi-data coverage`: facts by who delivered them, lag, share listened; with --png a picture over time."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from libs.store.coverage_records import Gatherer, SpanReader
from libs.store.errors import StoreError
from libs.store.pool import Target, connect
from services.coverage.counted import Coverage, facts_by_set, lag_quantiles, lowest
from services.coverage.gaps_command import read_heard
from services.coverage.picture import make_picture
from services.coverage.question import (
    EXIT_AWAY,
    EXIT_OK,
    EXIT_USAGE,
    Question,
    find_production,
    iso,
    make_parser,
    parse,
)
from services.coverage.show import Names, Show
from services.coverage.tables import make_table, percent, shares_table

DESCRIPTION = """
How many facts of deltas, trades and tickers each set of gatherers delivered, how long after receipt they were merged,
which share of the time each gatherer listened, and how complete the judged minutes were. Facts and lags are of all
markets; --market and --channel choose whose listening is shown.
"""
EXIT_NO_PLOTS = 3


def main(argv: Sequence[str]) -> int:
    """Run; return as gaps does, 3 when a picture is wanted and matplotlib is not installed or the file not writable."""
    parser = make_parser("coverage", DESCRIPTION)
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw coverage over time")
    arguments, question = parse(parser, argv)
    production = find_production("coverage", arguments.config)
    if production is None:
        return EXIT_USAGE
    try:
        gatherers, coverage = asyncio.run(read_coverage(production, question))
    except StoreError as error:
        sys.stderr.write(f"coverage: {production.address}: {error}\n")
        return EXIT_AWAY
    names, show = Names(gatherers), Show(is_json=arguments.json)
    # Before the tables: whoever reads only the first of them has the picture all the same.
    drawn = _draw(arguments.png, question, coverage, names) if arguments.png else EXIT_OK
    show.document(document(question, coverage, names))
    show.heading(question)
    for table in _tables(coverage, names):
        show.table(table)
    return drawn


async def read_coverage(production: Target, question: Question) -> tuple[list[Gatherer], Coverage]:
    """Ask production. Raises StoreError."""
    gatherers, channels = await read_heard(production, question)
    async with connect(production, "kalshi-data coverage") as conn:
        reader = SpanReader(conn, question.start, question.end)
        return gatherers, Coverage(
            await reader.facts(), await reader.lag_counts(), await reader.completeness(), channels
        )


def _draw(path: Path, question: Question, coverage: Coverage, names: Names) -> int:
    try:
        from services.coverage.plot import draw
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"coverage: {error.name} is not installed: pip install 'kalshi-data[plots]'\n"
        )
        return EXIT_NO_PLOTS
    try:
        width, height = draw(make_picture(coverage, (question.start, question.end)), names, path)
    except OSError as error:
        sys.stderr.write(f"coverage: {path}: {error}\n")
        return EXIT_NO_PLOTS
    sys.stderr.write(f"{path}: {width} x {height} pixels\n")
    return EXIT_OK


def _tables(coverage: Coverage, names: Names) -> list[Table]:
    tables = [_facts(coverage, names), _lags(coverage, names)]
    if any(heard.claims for heard in coverage.channels):
        tables.append(shares_table(coverage.channels, names))
    if coverage.judged:
        tables.append(_completeness(coverage))
    return tables


def _facts(coverage: Coverage, names: Names) -> Table:
    tables = sorted({count.table_name for count in coverage.facts})
    headings = [text for name in tables for text in (f">{name}", ">share")]
    table = make_table("Facts by who delivered them", "gatherers", *headings, ">late copies")
    found = facts_by_set(coverage.facts)
    totals = {name: sum(row.get(name, (0, 0))[0] for row in found.values()) for name in tables}
    for who, counts in found.items():
        cells = []
        for name in tables:
            facts = counts.get(name, (0, 0))[0]
            cells += [f"{facts:,}", percent(facts / totals[name] if totals[name] else None)]
        late = sum(late for _, late in counts.values())
        table.add_row(names.of_set(who), *cells, f"{late:,}")
    return table


def _lags(coverage: Coverage, names: Names) -> Table:
    table = make_table(
        "Lag from receipt to production", "gatherer", "table", ">rows", ">p50", ">p90", ">p99", ">max"
    )  # fmt: skip
    found = lag_quantiles(coverage.lags, lambda count: (count.gatherer, count.table_name))
    found |= {
        (gatherer, "all"): lag
        for gatherer, lag in lag_quantiles(coverage.lags, lambda count: count.gatherer).items()
    }
    for zone, table_name, lag in sorted(
        (names.of(g), name, lag) for (g, name), lag in found.items()
    ):
        table.add_row(
            zone, table_name, f"{lag.rows:,}",
            *(f"{value:,.3f} s" for value in lag[1:]),
        )  # fmt: skip
    return table


def _completeness(coverage: Coverage) -> Table:
    table = make_table(
        "Delivered by all, of what all claim to have heard", "table", ">minutes judged", ">facts", ">by all",
        ">share", "lowest minute", ">its share",
    )  # fmt: skip
    for name, (minutes, facts, by_all, worst) in sorted(lowest(coverage.judged).items()):
        table.add_row(
            name, f"{minutes:,}", f"{facts:,}", f"{by_all:,}", percent(by_all / facts), iso(worst.minute),
            percent(worst.by_all / worst.facts),
        )  # fmt: skip
    return table


def document(question: Question, coverage: Coverage, names: Names) -> dict[str, Any]:
    """Return the answer for programs, minute by minute; times as ISO 8601, lags in seconds."""
    lags = lag_quantiles(
        coverage.lags, lambda count: (count.gatherer, count.table_name, count.minute)
    )
    return {
        "from": iso(question.start),
        "to": iso(question.end),
        "market": question.market,
        "facts": [
            {
                "table": count.table_name, "minute": iso(count.minute), "zones": [names.of(g) for g in count.gatherers],
                "facts": count.facts, "late_copies": count.late_facts,
            }
            for count in coverage.facts
        ],
        "lags": [
            {"zone": names.of(gatherer), "table": table, "minute": iso(minute), **lag._asdict()}
            for (gatherer, table, minute), lag in sorted(lags.items())
        ],
        "listened": {
            heard.channel: {names.of(lane.gatherer): lane.share for lane in heard.lanes}
            for heard in coverage.channels
        },
        "completeness": [
            {
                "table": row.table_name, "minute": iso(row.minute), "facts": row.facts, "by_all": row.by_all,
                "unchecked": row.unchecked,
            }
            for row in coverage.judged
        ],
    }  # fmt: skip
