"""Which times a gatherer's ledger still holds on to: one reading of it for all partitions of a round.

Batches are counted by the hours they reach from and to, so that what comes back is small however long the ledger is.
A lane's numbers are committed in order and releases are never taken back: what may stand against a partition after the
reading is therefore only what lies above the lanes' heads of that moment, a range of the ledger's key that is short.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import LiteralString, NamedTuple
from uuid import UUID

from libs.store.partition_plan import Partition
from libs.store.pool import AnyConnection, map_store_errors

_LANES: LiteralString = """
WITH RECURSIVE known (lane) AS (
    (SELECT lane FROM ingest_batches ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (SELECT b.lane FROM ingest_batches b WHERE b.lane > known.lane ORDER BY b.lane LIMIT 1)
      FROM known WHERE known.lane IS NOT NULL
)
"""
"""Every lane of the ledger, by one look at its key for each."""

_HEADS: LiteralString = f"""
{_LANES}
SELECT lane, (SELECT max(b.batch_no) FROM ingest_batches b WHERE b.lane = known.lane) AS head
  FROM known WHERE lane IS NOT NULL
"""

_SPANS: LiteralString = """
SELECT t.name AS table_name, b.batch_no > coalesce(r.released_batch_no, 0) AS blocks, count(*) AS batches,
       min(t.time_from) AS time_from, max(t.time_to) AS time_to, min(b.batch_id) AS id_from, max(b.batch_id) AS id_to
  FROM ingest_batches b
  LEFT JOIN lane_releases r ON r.lane = b.lane
 CROSS JOIN LATERAL unnest(b.table_names, b.times_from, b.times_to) AS t (name, time_from, time_to)
 WHERE b.dropped_at IS NULL OR b.batch_no > coalesce(r.released_batch_no, 0)
 GROUP BY t.name, blocks, t.time_from / 3600000000, t.time_to / 3600000000
"""

_TOUCHES: LiteralString = """
EXISTS (SELECT FROM generate_subscripts(b.table_names, 1) AS i
         WHERE b.table_names[i] = $1 AND b.times_from[i] < $3 AND b.times_to[i] >= $2)
"""

_LATER: LiteralString = f"""
{_LANES}
SELECT EXISTS (
    SELECT FROM known
      LEFT JOIN unnest($4::uuid[], $5::bigint[]) AS seen (lane, head) ON seen.lane = known.lane
     CROSS JOIN LATERAL (
        SELECT b.* FROM ingest_batches b
         WHERE b.lane = known.lane AND b.batch_no > coalesce(seen.head, 0) ORDER BY b.batch_no
     ) b
     WHERE known.lane IS NOT NULL AND {_TOUCHES}
)
"""

_MARK_DROPPED: LiteralString = f"""
UPDATE ingest_batches b SET dropped_at = clock_timestamp()
 WHERE b.batch_id BETWEEN $4 AND $5 AND b.dropped_at IS NULL AND {_TOUCHES}
"""


class Span(NamedTuple):
    """Batches that reach from one hour to one other: the times they cover, microseconds, and the batch_ids they have.

    blocks: they are not released.
    """

    table_name: str
    blocks: bool
    batches: int
    time_from: int
    time_to: int
    id_from: int
    id_to: int


@dataclass(frozen=True, slots=True)
class LedgerSurvey:
    """The spans of every table whose batches are not dropped yet, and the largest number of every lane, of one moment."""

    spans: Mapping[str, tuple[Span, ...]]
    heads: Mapping[UUID, int]

    def fault(self, partition: Partition) -> str | None:
        """Say why the partition may not go; None when every batch that touches it was released."""
        blocking = sum(span.batches for span in self._over(partition) if span.blocks)
        return f"{blocking} batches are not released" if blocking else None

    def touched(self, partition: Partition) -> bool:
        """Tell whether a batch reaches into it that is not marked as dropped."""
        return any(True for _ in self._over(partition))

    async def late_fault(self, conn: AnyConnection, partition: Partition) -> str | None:
        """Say whether a batch touches the partition that was not there yet at the survey: exact under its lock.

        It reads the numbers above each lane's head alone.
        """
        arguments = (partition.table, partition.start, partition.end)
        lanes, heads = list(self.heads), list(self.heads.values())
        is_late = await conn.fetchval(_LATER, *arguments, lanes, heads)
        return "a batch was committed to it just now" if is_late else None

    async def mark_dropped(self, conn: AnyConnection, partition: Partition) -> None:
        """Mark the batches that touch the partition; found by the batch_ids that the survey saw there."""
        spans = list(self._over(partition))
        if spans:
            await conn.execute(
                _MARK_DROPPED, partition.table, partition.start, partition.end,
                min(span.id_from for span in spans), max(span.id_to for span in spans),
            )  # fmt: skip

    def _over(self, partition: Partition) -> Iterator[Span]:
        for span in self.spans.get(partition.table, ()):
            if span.time_from < partition.end and span.time_to >= partition.start:
                yield span


async def survey_ledger(conn: AnyConnection) -> LedgerSurvey:
    """Read the ledger once.

    Args:
        conn: not inside a transaction.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            heads = {row["lane"]: row["head"] for row in await conn.fetch(_HEADS)}
            found = [Span(*row) for row in await conn.fetch(_SPANS)]
    spans: dict[str, list[Span]] = defaultdict(list)
    for span in found:
        spans[span.table_name].append(span)
    return LedgerSurvey({name: tuple(group) for name, group in spans.items()}, heads)
