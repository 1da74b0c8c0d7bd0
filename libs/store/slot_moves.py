"""Markets on their way from one slot to another: in both slots' lists until the new one hears them. Make before break.

Proof of hearing is the opening that a connector of the new slot has committed, and that nothing has closed for good since
(after a gap in seq all streams of a sid are closed and opened again). What is not heard, because nobody serves the new
slot, stays where it was. A slot that the configuration has no more is served until its last market has left it.
"""

from collections.abc import Collection, Sequence

from libs.marketdata.units import SECOND
from libs.store.catalogue import RAISE_SLOTS, fenced
from libs.store.leases import Lease
from libs.store.pool import AnyConnection, map_store_errors

_CLOCKS_APART = 5 * SECOND
"""How far a connector's clock may be behind the database's, microseconds."""
_HEARD = """
with moving as (
    select ticker, slot, moved_at from markets where moved_from is not null and wanted
), opened as (
    select distinct o.ticker from listen_opened o join moving m on m.ticker = o.ticker and m.slot = o.slot
    where o.received_at >= (select min(moved_at) from moving) - $1
      and o.received_at >= m.moved_at - $1
      and o.received_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint - $2
      and not exists (
          select from listen_closed c
          where c.connection = o.connection and c.sid = o.sid and (c.ticker = o.ticker or c.ticker is null)
            and c.received_at >= o.received_at - $1 and c.seq >= o.seq
            and (c.ticker is not null or not exists (
                select from listen_opened a
                where a.connection = c.connection and a.sid = c.sid and a.ticker is null and a.seq > c.seq
                  and a.received_at >= c.received_at - $1
                  and a.received_at <= (extract(epoch from clock_timestamp()) * 1000000)::bigint - $2
            ))
      )
)
select ticker from opened order by ticker limit $3
"""
_WITH_MARKETS = """
select named.slot from unnest($1::text[]) as named (slot)
where exists (select from markets m where m.slot = named.slot and m.wanted)
   or exists (select from markets m where m.moved_from = named.slot and m.wanted)
order by named.slot
"""
_OVER = "select ticker from markets where moved_from is not null and not wanted order by ticker limit $1"
_END = """
with gone as (
    select ticker, moved_from from markets where ticker = any($1::text[]) and moved_from is not null for update
), ended as (
    update markets set moved_from = null from gone where markets.ticker = gone.ticker
)
select distinct moved_from from gone
"""


async def with_markets(conn: AnyConnection, slots: Collection[str]) -> list[str]:
    """Return those of the slots that some market is to be heard in, or came from and is not heard elsewhere yet."""
    if not slots:
        return []
    with map_store_errors():
        return [row[0] for row in await conn.fetch(_WITH_MARKETS, sorted(slots))]


async def count_moving(conn: AnyConnection) -> int:
    """Return how many markets are in two slots' lists."""
    with map_store_errors():
        found: int = await conn.fetchval(
            "select count(*) from markets where moved_from is not null and wanted"
        )
    return found


async def heard_in_new_slot(conn: AnyConnection, settle: int, limit: int) -> list[str]:
    """Return moving markets that their new slot has heard for `settle` microseconds, and those nobody wants any more."""
    with map_store_errors():
        rows = await conn.fetch(_OVER, limit)
        # Without a move there is nothing to look for among the openings of days.
        if await count_moving(conn):
            rows += await conn.fetch(_HEARD, _CLOCKS_APART, settle, limit)
    return [row[0] for row in rows]


async def end_moves(
    conn: AnyConnection, tickers: Sequence[str], lease: Lease | None = None
) -> frozenset[str]:
    """Take markets out of the lists of the slots they came from; return those slots, whose versions are raised.

    Raises:
        LeaseNotHeld: the lease is another's; nothing is written.
    """
    with map_store_errors():
        async with fenced(conn, lease):
            slots = frozenset(row[0] for row in await conn.fetch(_END, tickers))
            if slots:
                await conn.execute(RAISE_SLOTS, sorted(slots))
    return slots
