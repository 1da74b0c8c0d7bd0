"""What production no longer holds because it was archived and dropped, and how a merge is kept from making it new again.

Retention leaves a mark a table: below it, rows may be in the archive only. A range below the mark (as wide as a
partition) that manifests speak of counts as dropped until it is opened again (reopening.py): its key cannot say there
whether a row is new. A range that no manifest speaks of never held a row that went.
"""

from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from libs.marketdata.tables import GATHERER_TABLES, Kind, Table
from libs.marketdata.units import DAY
from libs.store.merge_errors import RowsRefused
from libs.store.merge_sql import TRADE_TIME_SPAN
from libs.store.merge_transaction import Segment
from libs.store.partition_plan import CALENDAR_FROM, CALENDAR_TO, partition_name, width_of
from libs.store.pool import AnyConnection

_WIDTHS: Final = {Kind.INT2: 2, Kind.INT4: 4, Kind.INT8: 8, Kind.BOOL: 1, Kind.UUID: 16}

_MARKS: Final = "SELECT table_name, dropped_before FROM retention_marks"

# Windows are a day wide at most: without the lower bound the whole table's manifests would be looked through.
_DROPPED: Final = f"""
SELECT u.table_name, u.range_from, u.range_to, coalesce(r.state, ''), coalesce(r.detail, '')
  FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS u (table_name, range_from, range_to)
  LEFT JOIN archive_reopenings r USING (table_name, range_from)
 WHERE r.state IS DISTINCT FROM 'open'
   AND u.range_from < (SELECT dropped_before FROM retention_marks m WHERE m.table_name = u.table_name)
   AND EXISTS (SELECT FROM archive_manifests m
                WHERE m.table_name = u.table_name AND m.window_from < u.range_to
                  AND m.window_from > u.range_from - {DAY} AND m.window_to > u.range_from)
 ORDER BY u.table_name, u.range_from
"""

_USED: Final = """
UPDATE archive_reopenings r SET used_at = clock_timestamp()
  FROM (SELECT r.table_name, r.range_from FROM archive_reopenings r
          JOIN unnest($1::text[], $2::bigint[]) AS u (table_name, range_from) USING (table_name, range_from)
         WHERE r.state = 'open' AND r.used_at < clock_timestamp() - interval '5 s'
           FOR UPDATE OF r SKIP LOCKED) due
 WHERE r.table_name = due.table_name AND r.range_from = due.range_from
"""


class Range(NamedTuple):
    """[start, end) of a table, microseconds: what one partition of production holds or would hold."""

    table: str
    start: int
    end: int

    def __str__(self) -> str:
        return partition_name(self.table, self.start, self.end - self.start)


class RangesDropped(RowsRefused):
    """A transaction has rows where production's own are in the archive only; they are to be opened again first.

    failed: why some cannot be, empty while they may yet be.
    """

    def __init__(self, ranges: Sequence[Range], failed: str) -> None:
        names = ", ".join(map(str, ranges[:3])) + (", ..." if len(ranges) > 3 else "")
        super().__init__(f"reopening: {names}: {failed or 'archived and dropped, not open yet'}")
        self.ranges = tuple(ranges)
        self.failed = failed


def range_of(table: Table, moment: int) -> Range:
    """Return the range that holds a moment of a calendar's years."""
    width = width_of(table, "production")
    start = moment - moment % width
    return Range(table.name, start, start + width)


async def dropped_ranges(
    conn: AnyConnection, ranges: Collection[Range]
) -> dict[Range, tuple[str, str]]:
    """Return those that are dropped and not open, with the state and detail of their request ('' without one)."""
    if not ranges:
        return {}
    rows = await conn.fetch(_DROPPED, *map(list, zip(*ranges, strict=True)))
    return {Range(*row[:3]): (row[3], row[4]) for row in rows}


async def insist_open(conn: AnyConnection, rows: Mapping[str, Sequence[Segment]]) -> None:
    """Refuse a transaction that would insert where production's rows are in the archive only.

    Called after the rows are in: a partition that holds one of them cannot be dropped before we end, and if it was
    dropped before, that is seen now.

    Raises:
        RangesDropped: these ranges are to be opened first.
    """
    marks = await conn.fetch(_MARKS)
    below = {
        one for name, mark in marks if name in rows for one in ranges_below(name, rows[name], mark)
    }
    await _insist(conn, below)


async def insist_merge_open(conn: AnyConnection, table_name: str, merge_no: int) -> None:
    """As insist_open, of the rows of one table that a merge of this number has brought; it looks below the mark only."""
    mark = await conn.fetchval(f"{_MARKS} WHERE table_name = $1", table_name, column=1)
    if mark is None or mark <= 0:
        return
    table, span = GATHERER_TABLES[table_name], _span(table_name)
    column, width = table.time_column, width_of(table, "production")
    rows = await conn.fetch(
        f"SELECT DISTINCT {column} / {width} * {width} AS start FROM {table_name}"
        f" WHERE {column} >= {CALENDAR_FROM} AND {column} < $1 AND merge_no = $2",
        min(mark + span, CALENDAR_TO), merge_no,
    )  # fmt: skip
    await _insist(conn, {one for row in rows for one in _near(table, row["start"], span, mark)})


async def _insist(conn: AnyConnection, below: set[Range]) -> None:
    if not below:
        return
    dropped = await dropped_ranges(conn, sorted(below))
    if dropped:
        failed = [
            f"{one}: {detail}" for one, (state, detail) in dropped.items() if state == "failed"
        ]
        raise RangesDropped(tuple(dropped), failed[0] if failed else "")
    await conn.execute(_USED, [one.table for one in below], [one.start for one in below])


def ranges_below(table_name: str, segments: Sequence[Segment], mark: int) -> set[Range]:
    """Return the ranges below the mark that packed rows lie in; of trades also those their look-up reads.

    A trade is one by its trade_id alone, and its copies may lie a day apart.
    """
    table = GATHERER_TABLES[table_name]
    if not table.partitioned_in_production or mark <= 0:
        return set()
    span = _span(table_name)
    limit = min(mark + span, CALENDAR_TO).to_bytes(8, "big")
    # Moments before 1970 begin with a set bit and stand above every limit: nothing of them is ever dropped.
    cut = itemgetter(_time_slice(table))
    found: set[Range] = set()
    for segment in segments:
        if min(map(cut, segment.payloads), default=limit) < limit:
            for packed in {time for time in map(cut, segment.payloads) if time < limit}:
                found |= _near(table, int.from_bytes(packed, "big"), span, mark)
    return found


def _span(table_name: str) -> int:
    return TRADE_TIME_SPAN if table_name == "trades" else 0


def _near(table: Table, moment: int, span: int, mark: int) -> set[Range]:
    """The ranges below the mark that a look-up from this moment reads."""
    near = {max(moment - span, CALENDAR_FROM), moment, moment + span}
    return {one for at in near if (one := range_of(table, at)).start < mark}


def _time_slice(table: Table) -> slice:
    """Where the partition time stands in a packed row: among the leading columns of fixed width."""
    offset = 0
    for column in table.columns:
        offset += 4
        if column.name == table.time_column:
            break
        offset += _WIDTHS[column.kind]
    return slice(offset, offset + 8)
