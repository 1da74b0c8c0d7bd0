"""The connections of a zone, counted in its database, so that all shards together never open more than the account has.

Each row of slot_assignments whose shard lives is a connection; what a shard has beyond its rows stands in its own row of
`shards`. Whoever is about to open one more reserves it first, behind the planner's row, as plans are written: a split
takes from what its shard has reserved, a move is a new row.
"""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from libs.store.pool import AnyConnection, map_store_errors

LEFT_TO_MOVE: Final = 1
"""Connections that reservations leave free, so that slots can always move."""
OF_ROWS: Final = """
(select count(*) from slot_assignments a join shards s using (shard) where s.expires_at > clock_timestamp())
"""
BEYOND_ROWS: Final = """
(select coalesce(sum(s.extra_connections), 0) from shards s where s.expires_at > clock_timestamp())
"""
_LOCK = "select true from planner for update"
_COUNT = f"""
select {OF_ROWS} + {BEYOND_ROWS} - coalesce((
        select s.extra_connections from shards s where s.shard = $1 and s.expires_at > clock_timestamp()), 0)
    + (select count(*) from unnest($3::text[]) as known (slot) where not exists (
        select from slot_assignments a join shards s using (shard)
        where a.slot = known.slot and s.expires_at > clock_timestamp())) as others,
    (select count(*) from unnest($2::text[]) as held (slot) where not exists (
        select from slot_assignments a where a.slot = held.slot and a.shard = $1)) as strays
"""
_RESERVE = """
update shards set extra_connections = $3 where shard = $1 and instance = $2 returning true
"""


async def count_connections(conn: AnyConnection) -> int:
    """Return how many connections the living shards of the zone have or may open."""
    with map_store_errors():
        return int(await conn.fetchval(f"select {OF_ROWS} + {BEYOND_ROWS}"))


async def reserve(
    conn: AnyConnection,
    shard: str,
    instance: UUID,
    *,
    held: Collection[str],
    reserved: int,
    wanted: int,
    slots: Collection[str],
    connections_max: int,
    may_grow: bool = True,
) -> int:
    """Reserve connections beyond one per slot; return how many the shard may use from now on.

    Args:
        conn: not inside a transaction.
        held: slots of which the shard has a connection, or is closing one. Those without a row are counted, too.
        reserved: what the shard may use already; it keeps that.
        wanted: most that it would use.
        slots: every slot of the configuration; one that nobody serves yet has its connection kept free.
        connections_max: of the account, in this zone.
        may_grow: False for one lease after an outage: others have their connections though their leases are old.

    Raises:
        StoreUnavailable: the database is away; what is reserved stays so.
    """
    with map_store_errors():
        async with conn.transaction(isolation="read_committed"):
            if not await conn.fetchval(_LOCK):
                return reserved
            others, strays = await conn.fetchrow(_COUNT, shard, list(held), list(slots))  # type: ignore[misc]
            room = connections_max - LEFT_TO_MOVE - others - strays
            granted = max(reserved, min(wanted, room)) if may_grow else reserved
            kept = await conn.fetchval(_RESERVE, shard, instance, strays + granted)
    return granted if kept else reserved
