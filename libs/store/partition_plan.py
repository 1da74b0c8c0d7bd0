"""Which partitions there should be, what they are called, and when one may go: pure, time is an argument.

Ranges are [start, end) in microseconds since the epoch, aligned to their width, so that every process that looks at
the same clock makes the same ones.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from libs.marketdata.tables import GATHERER_TABLES, Table
from libs.marketdata.units import DAY, HOUR, SECOND

DatabaseKind = Literal["gatherer", "production"]

BIGINT_MIN, BIGINT_MAX = -(2**63), 2**63 - 1
CALENDAR_FROM, CALENDAR_TO = 0, 253_402_300_800 * SECOND
"""The moments that are named by their date: years 1970 to 9999, microseconds."""

PRODUCTION_HOURLY = frozenset({"orderbook_deltas", "tickers"})
_MARK = re.compile(r"\s*/\*partition by (\w+) width (\d+)\*/")
_TABLE = re.compile(r"CREATE TABLE (\w+) \([^;]*?\)\s*/\*partition by (\w+) width (\d+)\*/;")
_BOUND = re.compile(r"FROM \('(-?\d+)'\) TO \('(-?\d+)'\)")


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of one table: [start, end) microseconds."""

    table: str
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far behind and ahead of now partitions are made, microseconds.

    Ahead: as long as nobody may come by to make more. Behind: as old as a row may be without being an oddity.
    """

    behind: int = DAY
    ahead: int = DAY


def partitioned_tables(kind: DatabaseKind) -> dict[str, Table]:
    """Return the tables of facts that are partitioned in this kind of database."""
    return {
        name: table
        for name, table in GATHERER_TABLES.items()
        if kind == "gatherer" or table.partitioned_in_production
    }


def width_of(table: Table, kind: DatabaseKind) -> int:
    """Return the width of a table's partitions, microseconds."""
    if kind == "gatherer":
        return table.chunk
    return HOUR if table.name in PRODUCTION_HOURLY else DAY


def partition_name(table: str, start: int, width: int) -> str:
    """Name a partition after its first moment in UTC: `..._p20261121`, with the hour when narrower than a day.

    A moment that no four-digit year holds is named by its microseconds: `..._us5000000000000000000`, `..._usm5` for -5.
    """
    if not CALENDAR_FROM <= start < CALENDAR_TO:
        return f"{table}_us{'m' if start < 0 else ''}{abs(start)}"
    moment = dt.datetime.fromtimestamp(start // SECOND, tz=dt.UTC)
    if width >= DAY:
        return f"{table}_p{moment:%Y%m%d}"
    return f"{table}_p{moment:%Y%m%d_%H}" if width >= HOUR else f"{table}_p{moment:%Y%m%d_%H%M%S}"


def partitions_around(table: str, now: int, width: int, horizon: Horizon) -> list[Partition]:
    """Return the partitions that cover [now - behind, now + ahead], ascending; cut off where bigint ends.

    The very last microsecond of bigint has no partition, since an end is exclusive: the default one holds it.
    """
    first = max(now - horizon.behind, BIGINT_MIN) // width * width
    last = min(now + horizon.ahead, BIGINT_MAX - 1)
    made = []
    for aligned in range(first, last + 1, width):
        start, end = max(aligned, BIGINT_MIN), min(aligned + width, BIGINT_MAX)
        made.append(Partition(table, partition_name(table, start, width), start, end))
    return made


def missing(wanted: Iterable[Partition], existing: Iterable[Partition]) -> list[Partition]:
    """Return the wanted ones that overlap none that exists (which may have had another width)."""
    there = list(existing)
    return [w for w in wanted if not any(w.start < e.end and e.start < w.end for e in there)]


def parse_bound(expression: str) -> tuple[int, int] | None:
    """Read PostgreSQL's text of a range bound; None for the default partition."""
    match = _BOUND.search(expression)
    return (int(match.group(1)), int(match.group(2))) if match else None


def render_partitioned(script: str, *, timescale: bool) -> str:
    """Fill in the marks of a migration script: native range partitions with a default one, or hypertables.

    A mark stands behind a CREATE TABLE: `/*partition by COLUMN width MICROSECONDS*/`.
    """
    made = []
    for table, column, width in _TABLE.findall(script):
        if timescale:
            made.append(
                f"SELECT create_hypertable('{table}', by_range('{column}', {width}::bigint),"
                f" create_default_indexes => false);\n"
                f"SELECT set_integer_now_func('{table}', 'now_us');\n"
            )
        else:
            made.append(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT;\n")
    partitioned = _MARK.sub("" if timescale else r" PARTITION BY RANGE (\1)", script)
    return partitioned + "\n" + "".join(made)


@dataclass(frozen=True, slots=True)
class ArchivedWindow:
    """What the manifests say of one window: rows of all its supplements, and the last merge_no they hold."""

    start: int
    end: int
    rows: int
    merge_to: int


def window_bounds(windows: Sequence[ArchivedWindow]) -> list[int]:
    """Return every bound of the windows once, ascending: the cuts of one counting scan."""
    return sorted({bound for window in windows for bound in (window.start, window.end)})


def archived_fault(
    partition: Partition,
    windows: Sequence[ArchivedWindow],
    counted: Mapping[int, tuple[int, int]],
) -> str | None:
    """Say why a partition may not go, None when every row of it is in a manifest.

    Args:
        windows: those that touch the partition.
        counted: for every start of a span between two bounds (partition.start - 1: before the first) that has rows,
            their number and largest merge_no.
    """
    starts = {window.start: window for window in windows}
    for window in windows:
        if window.start < partition.start or window.end > partition.end:
            return f"window {window.start}..{window.end} reaches beyond the partition"
        rows, merge_no = counted.get(window.start, (0, 0))
        if rows != window.rows:
            return f"window {window.start}..{window.end} holds {rows} rows, its manifests {window.rows}"
        if merge_no > window.merge_to:
            return f"window {window.start}..{window.end} was merged to up to {merge_no} after its export"
    stray = sum(rows for start, (rows, _) in counted.items() if start not in starts)
    return f"{stray} rows lie in no archived window" if stray else None
