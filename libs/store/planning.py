"""One look at a zone by whoever plans it: take the row, read, decide by the one pure plan, write it. Operator and stand-in alike."""

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from libs.flow.assignment import Plan, Row, moves_max, plan
from libs.store import control
from libs.store.errors import StoreError
from libs.store.planner import Planner, ZoneState, read_zone
from libs.store.pool import AnyConnection
from libs.store.slot_moves import with_markets


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a zone is to look like.

    Attributes:
        slots: every slot of the configuration, `kind/number`.
        connections_max: of the account, in this zone.
        pins: slots whose shard is given by hand.
        shards: how many there are to be; None: nobody says.
        newest: the newest template; None: that of the shard that started last.
    """

    slots: Collection[str]
    connections_max: int
    pins: Mapping[str, str] = field(default_factory=dict)
    shards: int | None = None
    newest: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found and did.

    Attributes:
        zone: shards and rows before the plan.
        plan: what was decided; None where it was not ours to plan, or not yet.
        written: whether the plan stands in the database; an empty one does.
    """

    zone: ZoneState
    plan: Plan | None = None
    written: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether there was nothing to do."""
        return self.plan is not None and self.plan.is_empty


async def look(
    conn: AnyConnection, planner: Planner, wishes: Wishes, *, now_s: float, settle_s: float
) -> Look | None:
    """Plan a zone once, if it is ours to plan; None when it is not.

    Args:
        now_s: seconds of a clock that never goes back.
        settle_s: how long a new planner only looks, so that shards that start together are all seen.

    Raises:
        StoreUnavailable: the database is away.
        StoreError: it does not let us plan; who can may take the row at once.
    """
    if not await planner.take(conn, now_s):
        return None
    try:
        return await _plan(conn, planner, wishes, settle_s)
    except StoreError as error:
        if not error.retryable:
            # Taken anew at each look, the row would keep the one that could stand in out for ever.
            with contextlib.suppress(StoreError):
                await planner.give_up(conn)
        raise


async def _plan(conn: AnyConnection, planner: Planner, wishes: Wishes, settle_s: float) -> Look:
    """Read, decide and write, as whoever holds the row."""
    if planner.held_for < settle_s:
        return Look(await read_zone(conn))
    zone = await planner.read(conn)
    if zone is None:
        return Look(await read_zone(conn))
    changes = await decide(conn, zone, wishes)
    if changes.is_empty:
        return Look(zone, changes, written=True)
    written = await planner.write(conn, changes, wishes.connections_max)
    if written:
        await control.notify(conn, control.ASSIGNMENTS)
    return Look(zone, changes, written)


async def decide(conn: AnyConnection, zone: ZoneState, wishes: Wishes) -> Plan:
    """Return the next changes of a zone."""
    slots = await slots_to_serve(conn, wishes.slots, zone.rows)
    extra = sum(shard.extra_connections for shard in zone.shards if shard.is_alive)
    return plan(
        slots,
        zone.shards,
        zone.rows,
        moves_max=moves_max(wishes.connections_max, len(slots) + extra),
        pins=wishes.pins,
        wanted=wishes.shards,
        newest=wishes.newest,
    )


async def slots_to_serve(
    conn: AnyConnection, known: Iterable[str], rows: Iterable[Row]
) -> set[str]:
    """Return the slots of the configuration, and those that it has no more but whose markets are not heard elsewhere yet."""
    slots = set(known)
    return slots.union(await with_markets(conn, {row.slot for row in rows} - slots))
