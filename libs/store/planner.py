"""The planner's hand on a zone's control tables: it reads shards and rows, and writes plans behind its fence.

Two kinds of planners take the one row by different rules: the operator when it has expired or when a shard holds it, a
shard (the stand-in) when it has expired and no living shard has a lower name. Otherwise they are alike.

Every judgement is by the database's clock, and only after this process has seen the database up, without a break, for
one whole lease: after an outage every lease is old and nobody is dead. Writes are fenced by the planner's epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from libs.flow.assignment import Pair, Plan, Row, Shard, State
from libs.store.connections import BEYOND_ROWS, OF_ROWS
from libs.store.control import LEASE, LEASE_S
from libs.store.pool import AnyConnection, map_store_errors

_KEEP_PLANNER = """
insert into planner (holder) select '' where not exists (select from planner) on conflict do nothing
"""
OPERATOR: Final = "operator/"
"""What the name of an operator begins with, as a holder of the row; no shard's name has a slash."""
_TAKE = """
update planner set holder = $1, expires_at = clock_timestamp() + $2,
    epoch = epoch + case when holder = $1 and expires_at > clock_timestamp() then 0 else 1 end
where (holder = $1 and expires_at > clock_timestamp())
"""
_IS_FREE = "expires_at <= clock_timestamp() and ($3 or expires_at = '-infinity')"
_TAKE_AS_SHARD = f"""{_TAKE}
   or ({_IS_FREE}
       and $1 = (select min(shard) from shards where expires_at > clock_timestamp() and not draining))
returning epoch
"""
_TAKE_AS_OPERATOR = (
    f"""{_TAKE} or ({_IS_FREE}) or not starts_with(holder, '{OPERATOR}') returning epoch"""
)
_HOLDER = "select holder from planner where expires_at > clock_timestamp()"
_GIVE_UP = "update planner set expires_at = '-infinity' where holder = $1"
_FENCE = "select true from planner where holder = $1 and epoch = $2 for update"
_SHARDS = """
select shard, expires_at > clock_timestamp(), draining, template_hash, capacity, epoch,
    greatest(0, extract(epoch from clock_timestamp() - expires_at) * 1000000)::bigint, extra_connections
from shards
"""
_ROWS = """
select slot, shard, state, epoch,
    greatest(0, extract(epoch from clock_timestamp() - assigned_at) * 1000000)::bigint as assigned_for
from slot_assignments
"""
_INSERT = f"""
insert into slot_assignments (slot, shard, epoch, state)
select slot, shard, $3, 'assigned' from unnest($1::text[], $2::text[]) as new (slot, shard)
order by exists (
    select from slot_assignments a join shards s using (shard)
    where a.slot = new.slot and s.expires_at > clock_timestamp()), slot
limit greatest(0, $4 - {OF_ROWS} - {BEYOND_ROWS})
on conflict do nothing
"""
"""What nobody serves comes first; a move waits for its connection."""
_MOVE = """
update slot_assignments set state = $4
from unnest($1::text[], $2::text[]) as old (slot, shard)
where (slot_assignments.slot, slot_assignments.shard) = (old.slot, old.shard) and state = $3
"""
_WITHDRAW = """
with gone as (
    delete from slot_assignments using unnest($1::text[], $2::text[]) as old (slot, shard)
    where (slot_assignments.slot, slot_assignments.shard) = (old.slot, old.shard) and state = 'assigned'
    returning slot_assignments.shard
)
update shards set extra_connections = extra_connections + left_open.connections
from (select shard, count(*) as connections from gone group by shard) left_open
where shards.shard = left_open.shard
"""
"""Its connection is counted until the shard itself says that it is closed."""
_BURY = """
delete from slot_assignments using unnest($1::text[], $2::text[]) as old (slot, shard)
where (slot_assignments.slot, slot_assignments.shard) = (old.slot, old.shard)
  and not exists (select from shards s where s.shard = old.shard and s.expires_at > clock_timestamp())
"""
_UP_SINCE = """
select clock_timestamp() as now,
    extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8 as up_s
"""


@dataclass(frozen=True, slots=True)
class ZoneState:
    """What a planner plans from."""

    shards: tuple[Shard, ...]
    rows: tuple[Row, ...]


class Planner:
    """Who plans a zone, or would: `Planner("connector-a-1")` in a shard, `Planner("operator/NAME")` in the operator.

    epoch: of our planning, None while another plans. held_for: seconds since we took the row. other: who holds it
    instead, as of the last attempt; empty when nobody does.
    """

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._take = _TAKE_AS_OPERATOR if holder.startswith(OPERATOR) else _TAKE_AS_SHARD
        self._up_for = 0.0
        self._seen_at: float | None = None
        self.epoch: int | None = None
        self.held_for = 0.0
        self.other = ""

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
            epoch = await conn.fetchval(self._take, self._holder, LEASE, may_judge)
            self.other = (await conn.fetchval(_HOLDER) or "") if epoch is None else ""
        self.held_for = self.held_for + since if epoch is not None and epoch == self.epoch else 0.0
        self.epoch = epoch
        return epoch is not None

    async def read(self, conn: AnyConnection) -> ZoneState | None:
        """Read shards and rows; None while expired leases may not be judged yet."""
        zone = await read_zone(conn)
        if self._up_for < LEASE_S and any(shard.has_vanished for shard in zone.shards):
            return None
        return zone

    async def write(self, conn: AnyConnection, plan: Plan, connections_max: int) -> bool:
        """Write a plan in one transaction behind the fence; False when another plans meanwhile.

        Of its inserts only so many are made as the zone has connections left: another look plans the rest again.
        """
        # A drain may give up planning while this transaction runs: it is written by the epoch its fence saw.
        epoch = self.epoch
        with map_store_errors():
            async with conn.transaction():
                if epoch is None or not await conn.fetchval(_FENCE, self._holder, epoch):
                    self.epoch = None
                    return False
                await conn.execute(_BURY, *_columns(plan.bury))
                await conn.execute(_WITHDRAW, *_columns(plan.withdraw))
                await conn.execute(_MOVE, *_columns(plan.restore), "releasing", "live")
                await conn.execute(_MOVE, *_columns(plan.release), "live", "releasing")
                await conn.execute(_INSERT, *_columns(plan.insert), epoch, connections_max)
        return True

    async def give_up(self, conn: AnyConnection) -> None:
        """Let another plan at once."""
        if self.epoch is not None:
            self.epoch = None
            with map_store_errors():
                await conn.execute(_GIVE_UP, self._holder)


async def read_zone(conn: AnyConnection) -> ZoneState:
    """Return every shard, alive or not, and every row.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        shards = tuple(Shard(*row) for row in await conn.fetch(_SHARDS))
        rows = tuple(
            Row(r["slot"], r["shard"], State(r["state"]), r["epoch"], r["assigned_for"])
            for r in await conn.fetch(_ROWS)
        )
    return ZoneState(shards, rows)


def _columns(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [pair.slot for pair in pairs], [pair.shard for pair in pairs]
