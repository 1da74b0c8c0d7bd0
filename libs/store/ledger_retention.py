"""Letting go of the ledger's past: rows and lanes whose facts left this database long ago.

A ledger row goes when its batch was released and its rows are gone for `keep_s`; a lane when it is closed, drained and
without rows. A lane loses its rows from the front only and never past its release, for a reader without a cursor starts
at the smallest number there is if all below it was released. An open lane keeps its newest row: its writer compares
that number with what it has confirmed.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString

from libs.store.partitions import existing_partitions
from libs.store.pool import AnyConnection, map_store_errors

BATCHES_MAX: Final = 20_000
"""Ledger rows deleted at once: some 10 ms of locks on rows that nobody else changes."""
LANE_BATCHES_MAX: Final = 2_000
"""Of one lane; a round in which one row may go reads that many."""
LANES_MAX: Final = 1_000
"""Lanes deleted at once."""

_NOW: LiteralString = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_GONE: LiteralString = """
(i.dropped_at < clock_timestamp() - $2::interval
 OR i.dropped_at IS NULL AND i.committed_at < clock_timestamp() - $2::interval AND NOT EXISTS (
    SELECT FROM unnest(i.table_names, i.times_from, i.times_to) AS t (name, time_from, time_to)
      JOIN unnest($3::text[], $4::bigint[], $5::bigint[]) AS p (name, time_from, time_to)
        ON p.name = t.name AND t.time_from < p.time_to AND t.time_to >= p.time_from)) IS TRUE
"""
"""A row of the ledger, i, has none of its facts in a partition. One whose facts were never in a partition (their time
was an oddity and they lie in the default one) is never marked as dropped; it goes by the age of its commit, so that it
does not hold its lane for ever."""

_DELETE_BATCHES: LiteralString = f"""
WITH front AS (
    SELECT i.lane, i.batch_no, bool_and({_GONE}) OVER by_number AS gone
      FROM lanes l JOIN lane_releases r USING (lane)
     CROSS JOIN LATERAL (SELECT i.* FROM ingest_batches i WHERE i.lane = l.lane ORDER BY i.batch_no LIMIT 1) first
     CROSS JOIN LATERAL (
        SELECT b.* FROM ingest_batches b
         WHERE b.lane = l.lane AND b.batch_no <= r.released_batch_no
           AND (l.closed_at IS NOT NULL
                OR b.batch_no < (SELECT max(n.batch_no) FROM ingest_batches n WHERE n.lane = l.lane))
         ORDER BY b.batch_no LIMIT $6
     ) i
     WHERE first.batch_no <= r.released_batch_no
       AND coalesce(first.dropped_at, first.committed_at) < clock_timestamp() - $2::interval
    WINDOW by_number AS (PARTITION BY i.lane ORDER BY i.batch_no)
), chosen AS (
    SELECT lane, batch_no FROM front WHERE gone ORDER BY lane, batch_no LIMIT $1
)
DELETE FROM ingest_batches b USING chosen WHERE b.lane = chosen.lane AND b.batch_no = chosen.batch_no
"""
"""Looks no further into a lane whose oldest row is young: that is every lane but at the turn of a partition."""

_DELETE_LANES: LiteralString = """
WITH chosen AS (
    SELECT l.lane FROM lanes l LEFT JOIN lane_releases r USING (lane)
     WHERE l.closed_at < clock_timestamp() - $2::interval AND l.last_batch_no <= coalesce(r.released_batch_no, 0)
       AND NOT EXISTS (SELECT FROM ingest_batches b WHERE b.lane = l.lane)
       AND NOT EXISTS (SELECT FROM lane_acknowledgements a WHERE a.lane = l.lane
                          AND a.merge_no = (SELECT max(n.merge_no) FROM lane_acknowledgements n))
     ORDER BY l.lane LIMIT $1
), releases AS (
    DELETE FROM lane_releases r USING chosen WHERE r.lane = chosen.lane
), acknowledgements AS (
    DELETE FROM lane_acknowledgements a USING chosen WHERE a.lane = chosen.lane
)
DELETE FROM lanes l USING chosen WHERE l.lane = chosen.lane
"""
"""One statement, so that no reader sees a lane without its release. The largest merge_no that this gatherer shows stays:
a new production writer starts above it."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many ledger rows and lanes went."""

    batches: int
    lanes: int


async def trim_ledger(
    conn: AnyConnection, keep_s: float, *, batches_max: int = BATCHES_MAX
) -> Trimmed:
    """Delete the oldest ledger rows that nobody needs, at most batches_max of them, then lanes without any.

    Args:
        conn: not inside a transaction.
        keep_s: seconds since its facts were dropped, or since a lane was closed.

    Raises:
        StoreUnavailable: the database is away; ask again.
    """
    age = timedelta(seconds=keep_s)
    with map_store_errors():
        now = await conn.fetchval(_NOW)
        # A chunk of the far future is an oddity's, like the default partition: it holds nothing up.
        held = [p for p in await existing_partitions(conn) if p.start <= now]
        batches = await conn.execute(
            _DELETE_BATCHES, batches_max, age,
            [p.table for p in held], [p.start for p in held], [p.end for p in held],
            LANE_BATCHES_MAX,
        )  # fmt: skip
        lanes = await conn.execute(_DELETE_LANES, LANES_MAX, age)
    return Trimmed(_count(batches), _count(lanes))


def _count(status: str) -> int:
    """Read the number in the server's `DELETE 12`."""
    return int(status.rpartition(" ")[2])
