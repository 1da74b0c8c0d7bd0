"""Control tables of a zone as a shard sees them: its lease, the slots that bear its name, and their markets.

A shard's own writes name the state they expect, so that a plan (planner.py) made meanwhile is never overwritten.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

from libs.flow.assignment import State
from libs.store.pool import AnyConnection, map_store_errors

ASSIGNMENTS: Final = "kd_assignments"
"""Told of after changes of slot_assignments."""
MARKETS: Final = "kd_markets"
"""Told of after changes of a slot's list of markets."""
HEARTBEAT_S: Final = 2.0
LEASE_S: Final = 6.0
LEASE: Final = timedelta(seconds=LEASE_S)

_REGISTER = """
insert into shards (shard, instance, template_hash, capacity, draining, epoch, expires_at)
values ($1, $2, $3, $4, false, 1 + coalesce((select max(epoch) from shards), 0), clock_timestamp() + $5)
on conflict (shard) do update set instance = excluded.instance, template_hash = excluded.template_hash,
    capacity = excluded.capacity, draining = false, epoch = excluded.epoch,
    heartbeat_at = clock_timestamp(), expires_at = excluded.expires_at, extra_connections = 0
"""
_FORGET_THE_DEAD = """
delete from shards where expires_at < clock_timestamp() - interval '1 hour'
  and not exists (select from slot_assignments a where a.shard = shards.shard)
"""
"""Pods of a Deployment never come back under their names. Here, because the operator may not delete shards."""
_REGISTER_AGAIN = """
insert into shards (shard, instance, template_hash, capacity, draining, epoch, expires_at)
values ($1, $2, $3, $4, false, 1 + coalesce((select max(epoch) from shards), 0), clock_timestamp() + $5)
on conflict (shard) do nothing returning true
"""
_HEARTBEAT = """
update shards set load = $3, draining = $4, heartbeat_at = clock_timestamp(), expires_at = clock_timestamp() + $5
where shard = $1 and instance = $2
returning true
"""
_DEREGISTER = "update shards set expires_at = clock_timestamp() where shard = $1 and instance = $2"
_OWN = """
select mine.slot, mine.state, mine.epoch,
    (select max(other.listening_from) from slot_assignments other join shards using (shard)
     where other.slot = mine.slot and other.shard <> mine.shard and other.state = 'live'
       and shards.expires_at > clock_timestamp()) as successor_from,
    exists(select from slot_assignments other where other.slot = mine.slot and other.shard <> mine.shard) as has_others,
    (select min(mirror.listening_from) from slot_assignments mirror join shards using (shard)
     where split_part(mirror.slot, '/', 1) = split_part(mine.slot, '/', 1) and mirror.slot <> mine.slot
       and mine.state = 'releasing' and mirror.state = 'live' and shards.expires_at > clock_timestamp()) as sibling_from
from slot_assignments mine where mine.shard = $1 order by mine.slot
"""
_HEARD_BY_OTHERS = """
select slot, max(listening_from) as listening_from
from slot_assignments join shards using (shard)
where slot = any($1::text[]) and shard <> $2 and state = 'live' and listening_from is not null
  and shards.expires_at > clock_timestamp()
group by slot
"""
_SURPASSED = """
select wanted.slot from unnest($1::text[]) as wanted (slot)
left join slot_assignments mine on mine.slot = wanted.slot and mine.shard = $2
where mine.state is distinct from 'assigned' and exists (
    select from slot_assignments other join shards using (shard)
    where other.slot = wanted.slot and other.shard <> $2 and other.state = 'live' and shards.expires_at > clock_timestamp()
      and other.listening_from > coalesce(mine.listening_from, 0))
"""
_SET_LIVE = """
update slot_assignments set state = 'live', listening_from = $3
where slot = $1 and shard = $2 and state = 'assigned'
  and ($4::bigint is null or $4 = (select version from slot_versions where slot = $1)) returning true
"""
_RELEASED = "delete from slot_assignments where slot = $1 and shard = $2 and state = 'releasing' returning true"
_OTHERS_DRAIN = """
select exists(select from shards where shard <> $1 and draining and expires_at > clock_timestamp())
"""


class Owned(NamedTuple):
    """A row that bears our name.

    successor_from: listening_from of another live owner, None while there is none. has_others: another shard has a row
    of this slot, in whatever state. sibling_from: from when on another slot of the same kind is heard, None if none is; of
    a whole channel it hears the same.
    """

    slot: str
    state: State
    epoch: int
    successor_from: int | None
    has_others: bool = True
    sibling_from: int | None = None


# --- a shard's own rows -----------------------------------------------------------------------------


async def register(
    conn: AnyConnection, shard: str, instance: UUID, *, template_hash: str, capacity: int
) -> None:
    """Begin this shard's lease under a new instance; its epoch becomes the largest of the zone.

    Shards that are gone for an hour and have no row are forgotten.
    """
    with map_store_errors():
        await conn.execute(_FORGET_THE_DEAD)
        await conn.execute(_REGISTER, shard, instance, template_hash, capacity, LEASE)


async def heartbeat(
    conn: AnyConnection, shard: str, instance: UUID, *, load: float, draining: bool
) -> bool:
    """Prolong the lease; False when it is not ours: another instance has the name, or the row is gone.

    Raises:
        StoreUnavailable: the database is away; capture goes on.
    """
    with map_store_errors():
        kept = await conn.fetchval(_HEARTBEAT, shard, instance, load, draining, LEASE)
    return bool(kept)


async def register_again(
    conn: AnyConnection, shard: str, instance: UUID, *, template_hash: str, capacity: int
) -> bool:
    """Begin the lease anew if no row bears this shard's name; False when another instance has the name.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        made = await conn.fetchval(_REGISTER_AGAIN, shard, instance, template_hash, capacity, LEASE)
    return bool(made)


async def deregister(conn: AnyConnection, shard: str, instance: UUID) -> None:
    """End the lease at once; the shard's rows stay for whoever plans."""
    with map_store_errors():
        await conn.execute(_DEREGISTER, shard, instance)


async def owned(conn: AnyConnection, shard: str) -> list[Owned]:
    """Return every row that bears this shard's name."""
    with map_store_errors():
        rows = await conn.fetch(_OWN, shard)
    return [Owned(r[0], State(r["state"]), *r[2:]) for r in rows]


async def heard_by_others(conn: AnyConnection, slots: Sequence[str], shard: str) -> dict[str, int]:
    """Return, for those of the slots that another living shard hears, from when on: exchange time, microseconds."""
    with map_store_errors():
        rows = await conn.fetch(_HEARD_BY_OTHERS, slots, shard)
    return {row["slot"]: row["listening_from"] for row in rows}


async def surpassed(conn: AnyConnection, slots: Sequence[str], shard: str) -> set[str]:
    """Return those of the slots that another living shard has begun to hear after us: it is the one that goes on."""
    with map_store_errors():
        return {row["slot"] for row in await conn.fetch(_SURPASSED, slots, shard)}


async def set_live(
    conn: AnyConnection, slot: str, shard: str, listening_from: int, version: int | None = None
) -> bool:
    """Say that the slot is subscribed and heard from listening_from on.

    Args:
        version: of the list of markets that is heard; None: of whatever list.

    Returns:
        False when the row was withdrawn, or the list is another one by now.
    """
    with map_store_errors():
        return bool(await conn.fetchval(_SET_LIVE, slot, shard, listening_from, version))


async def released(conn: AnyConnection, slot: str, shard: str) -> bool:
    """Delete our row after the hand-over; False when it is not releasing any more."""
    with map_store_errors():
        return bool(await conn.fetchval(_RELEASED, slot, shard))


async def others_drain(conn: AnyConnection, shard: str) -> bool:
    """True while another shard of the zone is draining."""
    with map_store_errors():
        return bool(await conn.fetchval(_OTHERS_DRAIN, shard))


# --- the markets of slots ---------------------------------------------------------------------------


async def slot_versions(conn: AnyConnection, slots: Sequence[str]) -> dict[str, int]:
    """Return the version of each slot's list of markets; slots without a list are left out."""
    with map_store_errors():
        rows = await conn.fetch(
            "select slot, version from slot_versions where slot = any($1::text[])", slots
        )
    return {row["slot"]: row["version"] for row in rows}


async def slot_markets(conn: AnyConnection, slot: str) -> list[str]:
    """Return the tickers of a slot that are to be captured, those that are on their way to another slot with them.

    Read the version before, never after.
    """
    with map_store_errors():
        rows = await conn.fetch(
            "select ticker from markets where slot = $1 and wanted"
            " union select ticker from markets where moved_from = $1 and wanted order by ticker",
            slot,
        )
    return [row["ticker"] for row in rows]


async def notify(conn: AnyConnection, channel: LiteralString) -> None:
    """Wake whoever listens on the channel; a statement of its own."""
    with map_store_errors():
        await conn.execute("select pg_notify($1, '')", channel)
