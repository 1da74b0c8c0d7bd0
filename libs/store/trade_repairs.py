"""What the poller remembers of the trade channel's repairs, and which trades of the tape are stored already.

A repair is a span that nobody heard, read back from the exchange's tape; it stands in the zone's own database until
long after its end, so that a restart goes on where the last process stopped and nobody heals a span twice.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final, LiteralString, NamedTuple

from libs.store.pool import AnyConnection, map_store_errors

FORGET_MAX: Final = 10_000


class NewRepair(NamedTuple):
    """A span to be repaired: [from_ts, to_ts) of `ticker` (None: every market), not before due_at; microseconds."""

    ticker: str | None
    from_ts: int
    to_ts: int
    due_at: int
    cause: str


class Repair(NamedTuple):
    """An open repair. Everything of the span at or after reached_ts is stored."""

    repair: int
    ticker: str | None
    from_ts: int
    to_ts: int
    due_at: int
    reached_ts: int
    attempts: int
    trades_stored: int


class Ending(NamedTuple):
    """How a repair ended: `healed`, `heard` (nothing of it was missed), `partial` or `failed`, and why."""

    state: str
    detail: str


_ADD: LiteralString = """
insert into trade_repairs (ticker, from_ts, to_ts, due_at, reached_ts, cause)
select n.ticker, n.from_ts, n.to_ts, n.due_at, n.to_ts, n.cause
from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
    as n (ticker, from_ts, to_ts, due_at, cause)
where not exists (
    select from trade_repairs r
    where r.ticker is not distinct from n.ticker and r.from_ts <= n.from_ts and r.to_ts >= n.to_ts and r.to_ts >= $6
)
"""
_DUE: LiteralString = """
select repair, ticker, from_ts, to_ts, due_at, reached_ts, attempts, trades_stored
from trade_repairs where state = 'open' and due_at <= $1 order by due_at, repair limit $2
"""
_COVERED: LiteralString = """
select from_ts, to_ts from trade_repairs
where ticker is null and to_ts >= $1 and (state in ('healed', 'heard') or $2)
"""
_PROGRESS: LiteralString = """
update trade_repairs set reached_ts = least(reached_ts, $2), trades_read = trades_read + $3,
    trades_stored = trades_stored + $4
where repair = $1
"""
_END: LiteralString = """
update trade_repairs set state = $2, detail = $3, ended_at = clock_timestamp() where repair = $1 and state = 'open'
"""
_ATTEMPT: LiteralString = "update trade_repairs set attempts = attempts + 1, detail = $2 where repair = $1 returning attempts"
_COUNTS: LiteralString = "select state, count(*) as repairs from trade_repairs group by state"
_UNHEALED: LiteralString = """
select ticker, from_ts, to_ts, reached_ts, cause, state, detail from trade_repairs
where state in ('partial', 'failed') order by repair desc limit $1
"""
_FORGET: LiteralString = """
delete from trade_repairs where repair in (
    select repair from trade_repairs where ended_at < clock_timestamp() - $1::interval order by repair limit $2
)
"""
_STORED: LiteralString = """
select trade_id from trades where exchange_ts between $2 and $3 and trade_id = any($1::text[])
"""


async def add_repairs(conn: AnyConnection, repairs: Sequence[NewRepair]) -> None:
    """Note spans to be repaired; one that lies within a known one of the same ticker is left out."""
    if not repairs:
        return
    columns = [list(column) for column in zip(*repairs, strict=True)]
    with map_store_errors():
        await conn.execute(_ADD, *columns, min(repair.to_ts for repair in repairs))


async def due_repairs(conn: AnyConnection, now: int, limit: int) -> list[Repair]:
    """Return the open repairs that are due, the longest due first."""
    with map_store_errors():
        return [Repair(*row) for row in await conn.fetch(_DUE, now, limit)]


async def repaired_spans(
    conn: AnyConnection, since: int, *, with_open: bool = False
) -> list[tuple[int, int]]:
    """Return the spans [from, to) of all markets that reach beyond `since` and are healed.

    Args:
        with_open: also those that are noted but not done, or could not be done.
    """
    with map_store_errors():
        return [(row[0], row[1]) for row in await conn.fetch(_COVERED, since, with_open)]


async def note_progress(
    conn: AnyConnection, repair: int, reached_ts: int, trades_read: int, trades_stored: int
) -> None:
    """Note that everything at or after reached_ts is stored, and what that was."""
    with map_store_errors():
        await conn.execute(_PROGRESS, repair, reached_ts, trades_read, trades_stored)


async def end_repair(conn: AnyConnection, repair: int, ending: Ending) -> None:
    """Close a repair."""
    with map_store_errors():
        await conn.execute(_END, repair, ending.state, ending.detail)


async def note_attempt(conn: AnyConnection, repair: int, error: str) -> int:
    """Note that reading the tape failed for good this time; return how often it did."""
    with map_store_errors():
        return int(await conn.fetchval(_ATTEMPT, repair, error) or 0)


async def count_repairs(conn: AnyConnection) -> dict[str, int]:
    """Return how many repairs are remembered by state."""
    with map_store_errors():
        return {row["state"]: row["repairs"] for row in await conn.fetch(_COUNTS)}


async def unhealed_spans(conn: AnyConnection, limit: int) -> list[dict[str, object]]:
    """Return the newest spans that could not be healed whole, with what stands in the way."""
    with map_store_errors():
        return [dict(row) for row in await conn.fetch(_UNHEALED, limit)]


async def forget_repairs(conn: AnyConnection, keep_s: float) -> None:
    """Delete repairs that ended long ago; a bounded number, the next turn goes on."""
    with map_store_errors():
        await conn.execute(_FORGET, timedelta(seconds=keep_s), FORGET_MAX)


async def stored_trades(
    conn: AnyConnection, trade_ids: Iterable[str], from_ts: int, to_ts: int, slack: int
) -> set[str]:
    """Return those of these trades that are stored with an exchange_ts within [from_ts - slack, to_ts + slack].

    The socket's copy and the tape's of one trade may differ in their time, but not by much.
    """
    with map_store_errors():
        rows = await conn.fetch(_STORED, list(trade_ids), from_ts - slack, to_ts + slack)
    return {row["trade_id"] for row in rows}
