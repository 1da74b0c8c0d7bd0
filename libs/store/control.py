"""Control tables of a zone: shards and their leases, slots and their owners, the planner's fence.

Every judgement is by the database's clock, and only after this process has seen the database up, without a break, for
one whole lease: after an outage every lease is old and nobody is dead. Writes of the planner are fenced by its epoch;
a shard's own writes name the state they expect, so that a plan made meanwhile is never overwritten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

from libs.flow.assignment import Pair, Plan, Row, Shard, State
from libs.store.pool import AnyConnection, map_store_errors

ASSIGNMENTS: Final = "kd_assignments"
"""Told of after changes of slot_assignments."""
MARKETS: Final = "kd_markets"
"""Told of after changes of a slot's list of markets."""
HEARTBEAT_S: Final = 2.0
LEASE_S: Final = 6.0
_LEASE = timedelta(seconds=LEASE_S)

_REGISTER = """
insert into shards (shard, instance, template_hash, capacity, draining, epoch, expires_at)
values ($1, $2, $3, $4, false, 1 + coalesce((select max(epoch) from shards), 0), clock_timestamp() + $5)
on conflict (shard) do update set instance = excluded.instance, template_hash = excluded.template_hash,
    capacity = excluded.capacity, draining = false, epoch = excluded.epoch,
    heartbeat_at = clock_timestamp(), expires_at = excluded.expires_at
"""
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
    exists(select from slot_assignments other where other.slot = mine.slot and other.shard <> mine.shard) as has_others
from slot_assignments mine where mine.shard = $1 order by mine.slot
"""
_HEARD_BY_OTHERS = """
select slot, max(listening_from) as listening_from
from slot_assignments join shards using (shard)
where slot = any($1::text[]) and shard <> $2 and state = 'live' and listening_from is not null
  and shards.expires_at > clock_timestamp()
group by slot
"""
_SET_LIVE = """
update slot_assignments set state = 'live', listening_from = $3
where slot = $1 and shard = $2 and state = 'assigned' returning true
"""
_RELEASED = "delete from slot_assignments where slot = $1 and shard = $2 and state = 'releasing' returning true"
_OTHERS_DRAIN = """
select exists(select from shards where shard <> $1 and draining and expires_at > clock_timestamp())
"""
_KEEP_PLANNER = """
insert into planner (holder) select '' where not exists (select from planner) on conflict do nothing
"""
_PLANNER = """
update planner set holder = $1, expires_at = clock_timestamp() + $2,
    epoch = epoch + case when holder = $1 and expires_at > clock_timestamp() then 0 else 1 end
where (holder = $1 and expires_at > clock_timestamp())
   or (expires_at <= clock_timestamp() and ($3 or expires_at = '-infinity')
       and $1 = (select min(shard) from shards where expires_at > clock_timestamp() and not draining))
returning epoch
"""
_GIVE_UP = "update planner set expires_at = '-infinity' where holder = $1"
_FENCE = "select true from planner where holder = $1 and epoch = $2 for update"
_SHARDS = """
select shard, expires_at > clock_timestamp(), draining, template_hash, capacity, epoch,
    greatest(0, extract(epoch from clock_timestamp() - expires_at) * 1000000)::bigint
from shards
"""
_ROWS = """
select slot, shard, state, epoch,
    greatest(0, extract(epoch from clock_timestamp() - assigned_at) * 1000000)::bigint as assigned_for
from slot_assignments
"""
_INSERT = """
insert into slot_assignments (slot, shard, epoch, state)
select slot, shard, $3, 'assigned' from unnest($1::text[], $2::text[]) as new (slot, shard)
on conflict do nothing
"""
_MOVE = """
update slot_assignments set state = $4
from unnest($1::text[], $2::text[]) as old (slot, shard)
where (slot_assignments.slot, slot_assignments.shard) = (old.slot, old.shard) and state = $3
"""
_WITHDRAW = """
delete from slot_assignments using unnest($1::text[], $2::text[]) as old (slot, shard)
where (slot_assignments.slot, slot_assignments.shard) = (old.slot, old.shard) and state = 'assigned'
"""
_BURY = """
delete from slot_assignments using unnest($1::text[], $2::text[]) as old (slot, shard)
where (slot_assignments.slot, slot_assignments.shard) = (old.slot, old.shard)
  and not exists (select from shards s where s.shard = old.shard and s.expires_at > clock_timestamp())
"""
_FORGET_SHARDS = """
delete from shards where expires_at < clock_timestamp() - interval '1 hour'
  and not exists (select from slot_assignments a where a.shard = shards.shard)
"""
_UP_SINCE = """
select clock_timestamp() as now,
    extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8 as up_s
"""


class Owned(NamedTuple):
    """A row that bears our name.

    successor_from: listening_from of another live owner, None while there is none. has_others: another shard has a row
    of this slot, in whatever state.
    """

    slot: str
    state: State
    epoch: int
    successor_from: int | None
    has_others: bool = True


@dataclass(frozen=True, slots=True)
class ZoneState:
    """What a planner plans from."""

    shards: tuple[Shard, ...]
    rows: tuple[Row, ...]


# --- a shard's own rows -----------------------------------------------------------------------------


async def register(
    conn: AnyConnection, shard: str, instance: UUID, *, template_hash: str, capacity: int
) -> None:
    """Begin this shard's lease under a new instance; its epoch becomes the largest of the zone."""
    with map_store_errors():
        await conn.execute(_REGISTER, shard, instance, template_hash, capacity, _LEASE)


async def heartbeat(
    conn: AnyConnection, shard: str, instance: UUID, *, load: float, draining: bool
) -> bool:
    """Prolong the lease; False when it is not ours: another instance has the name, or the row is gone.

    Raises:
        StoreUnavailable: the database is away; capture goes on.
    """
    with map_store_errors():
        kept = await conn.fetchval(_HEARTBEAT, shard, instance, load, draining, _LEASE)
    return bool(kept)


async def register_again(
    conn: AnyConnection, shard: str, instance: UUID, *, template_hash: str, capacity: int
) -> bool:
    """Begin the lease anew if no row bears this shard's name; False when another instance has the name.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        made = await conn.fetchval(
            _REGISTER_AGAIN, shard, instance, template_hash, capacity, _LEASE
        )
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


async def set_live(conn: AnyConnection, slot: str, shard: str, listening_from: int) -> bool:
    """Say that the slot is subscribed and heard from listening_from on; False when the row was withdrawn."""
    with map_store_errors():
        return bool(await conn.fetchval(_SET_LIVE, slot, shard, listening_from))


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


# --- the planner ------------------------------------------------------------------------------------


class Planner:
    """The stand-in planner inside a shard: plans while it is the live shard with the lowest name.

    epoch: of our planning, None while another plans.
    """

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self._up_for = 0.0
        self._seen_at: float | None = None
        self.epoch: int | None = None
        self.held_for = 0.0

    def unseen(self) -> None:
        """Note that the database was away: judging begins anew."""
        self._seen_at, self._up_for, self.epoch = None, 0.0, None

    async def take(self, conn: AnyConnection, monotonic: float) -> bool:
        """Take or keep the planner's row; False while another has it.

        Args:
            monotonic: seconds of a clock that never goes back.
        """
        with map_store_errors():
            up_s = (await conn.fetchrow(_UP_SINCE))["up_s"]  # type: ignore[index]
            since = 0.0 if self._seen_at is None else monotonic - self._seen_at
            self._up_for = min(self._up_for + since, up_s)
            self._seen_at = monotonic
            may_judge = self._up_for >= LEASE_S
            # An emptied database has no row either, and without one nobody would ever plan.
            await conn.execute(_KEEP_PLANNER)
            epoch = await conn.fetchval(_PLANNER, self._shard, _LEASE, may_judge)
        self.held_for = self.held_for + since if epoch is not None and epoch == self.epoch else 0.0
        self.epoch = epoch
        return epoch is not None

    async def read(self, conn: AnyConnection) -> ZoneState | None:
        """Read shards and rows; None while expired leases may not be judged yet."""
        with map_store_errors():
            shards = tuple(Shard(*row) for row in await conn.fetch(_SHARDS))
            rows = tuple(
                Row(r["slot"], r["shard"], State(r["state"]), r["epoch"], r["assigned_for"])
                for r in await conn.fetch(_ROWS)
            )
        if self._up_for < LEASE_S and any(shard.has_vanished for shard in shards):
            return None
        return ZoneState(shards, rows)

    async def write(self, conn: AnyConnection, plan: Plan) -> bool:
        """Write a plan in one transaction behind the fence; False when another plans meanwhile."""
        with map_store_errors():
            async with conn.transaction():
                if not await conn.fetchval(_FENCE, self._shard, self.epoch):
                    self.epoch = None
                    return False
                await conn.execute(_BURY, *_columns(plan.bury))
                await conn.execute(_WITHDRAW, *_columns(plan.withdraw))
                await conn.execute(_MOVE, *_columns(plan.restore), "releasing", "live")
                await conn.execute(_MOVE, *_columns(plan.release), "live", "releasing")
                await conn.execute(_INSERT, *_columns(plan.insert), self.epoch)
                await conn.execute(_FORGET_SHARDS)
        return True

    async def give_up(self, conn: AnyConnection) -> None:
        """Let another plan at once."""
        if self.epoch is not None:
            self.epoch = None
            with map_store_errors():
                await conn.execute(_GIVE_UP, self._shard)


def _columns(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [pair.slot for pair in pairs], [pair.shard for pair in pairs]


async def notify(conn: AnyConnection, channel: LiteralString) -> None:
    """Wake whoever listens on the channel; a statement of its own."""
    with map_store_errors():
        await conn.execute("select pg_notify($1, '')", channel)
