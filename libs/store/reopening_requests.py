"""Requests to open dropped ranges again: asked for by the deduplicator, worked off by the archiver.

One row a range; it outlives both processes. Whoever waits repeats the request, which keeps an open range from being
dropped again.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from libs.store.borrowing import borrow
from libs.store.dropped import Range
from libs.store.pool import AnyConnection, Pool, map_store_errors

ABANDONED_S: Final = 86_400.0
"""A request that nobody has waited for this long is closed, seconds."""
RETRY_S_MIN: Final = 5.0

_WANT = """
INSERT INTO archive_reopenings AS r (table_name, range_from, range_to)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
ON CONFLICT (table_name, range_from) DO UPDATE
   SET used_at = clock_timestamp(),
       state = CASE r.state WHEN 'closed' THEN 'requested' ELSE r.state END,
       requested_at = CASE r.state WHEN 'closed' THEN clock_timestamp() ELSE r.requested_at END,
       attempts = CASE r.state WHEN 'closed' THEN 0 ELSE r.attempts END,
       detail = CASE r.state WHEN 'closed' THEN '' ELSE r.detail END
RETURNING table_name, range_from, range_to, state, detail
"""

_DUE = """
SELECT table_name, range_from, range_to FROM archive_reopenings
 WHERE state = 'requested'
    OR (state = 'failed' AND tried_at < clock_timestamp() - make_interval(secs => least($1 * 2 ^ attempts, $2)))
 ORDER BY requested_at, table_name, range_from
"""

_FAILED = """
WITH before AS (SELECT state FROM archive_reopenings WHERE table_name = $1 AND range_from = $2)
UPDATE archive_reopenings SET state = CASE WHEN $3 THEN 'failed' ELSE state END, detail = $4,
       attempts = least(attempts + 1, 20), tried_at = clock_timestamp()
 WHERE table_name = $1 AND range_from = $2
RETURNING $3 AND (SELECT state FROM before) <> 'failed'
"""

_ABANDON = """
UPDATE archive_reopenings SET state = 'closed', closed_at = clock_timestamp()
 WHERE state IN ('requested', 'failed') AND used_at < clock_timestamp() - make_interval(secs => $1)
RETURNING table_name, range_from, range_to
"""

_ASIDE = "FROM gatherers WHERE status = 'quarantined' AND detail ~ '^lane=\\S+ batch_no=\\d+ reopening: '"
_STILL_WANTED = f"""
UPDATE archive_reopenings SET used_at = clock_timestamp() WHERE state = 'failed' AND EXISTS (SELECT {_ASIDE})
"""
_READMIT = f"""
UPDATE gatherers SET status = 'ok', detail = NULL
 WHERE gatherer IN (SELECT gatherer {_ASIDE}) AND NOT EXISTS (SELECT FROM archive_reopenings WHERE state = 'failed')
RETURNING gatherer
"""

_EVENT = "INSERT INTO operational_events (kind, detail) VALUES ($1, $2)"


class Wanted(NamedTuple):
    """A range that was asked for, the state of the request and why it is in it."""

    range: Range
    state: str
    detail: str


async def want_open(conn: AnyConnection, ranges: Collection[Range]) -> list[Wanted]:
    """Ask for ranges to be opened, or to be kept open; say how each stands. Repeat it while waiting.

    Raises:
        StoreUnavailable: production is away.
    """
    if not ranges:
        return []
    with map_store_errors():
        rows = await conn.fetch(_WANT, *map(list, zip(*sorted(ranges), strict=True)))
    return [Wanted(Range(*row[:3]), row[3], row[4]) for row in rows]


async def due_reopenings(pool: Pool, retry_s_max: float) -> list[Range]:
    """Return the ranges to open now, those asked for first first; a failed one waits longer each time.

    Raises:
        StoreUnavailable: production is away.
    """
    with map_store_errors():
        rows = await pool.fetch(_DUE, RETRY_S_MIN, retry_s_max)
    return [Range(*row) for row in rows]


async def abandon_unwanted(pool: Pool) -> list[Range]:
    """Close the requests that nobody waits for any more, and return them. Raises StoreUnavailable."""
    with map_store_errors():
        return [Range(*row) for row in await pool.fetch(_ABANDON, ABANDONED_S)]


async def note_failed(pool: Pool, wanted: Range, detail: str, *, is_final: bool) -> bool:
    """Note why a range could not be opened just now; return whether that is news, which has an event row then.

    Args:
        is_final: an object is missing or wrong; otherwise somebody is away and the request stands as it is.

    Raises:
        StoreUnavailable: production is away.
    """
    async with borrow(pool) as conn, conn.transaction():
        is_news = await conn.fetchval(_FAILED, wanted.table, wanted.start, is_final, detail)
        if is_news:
            await conn.execute(_EVENT, "reopening_failed", f"{wanted}: {detail}")
    return bool(is_news)


async def readmit_opened(conn: AnyConnection) -> list[int]:
    """Re-admit gatherers that were set aside for ranges that could not be opened, once none is failed any more.

    While they wait, their requests are kept from being given up. Returns the gatherers' numbers.

    Raises:
        StoreUnavailable: production is away.
    """
    with map_store_errors():
        async with conn.transaction():
            await conn.execute(_STILL_WANTED)
            rows = await conn.fetch(_READMIT)
            for row in rows:
                await conn.execute(
                    "INSERT INTO operational_events (kind, gatherer, detail) VALUES ('gatherer_readmitted', $1, $2)",
                    row["gatherer"], "the ranges it needs are open again",
                )  # fmt: skip
    return [int(row["gatherer"]) for row in rows]
