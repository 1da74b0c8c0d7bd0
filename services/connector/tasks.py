"""The connector's loops, each with its single turn: heartbeat, plan, follow assignments."""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

from libs.runtime.service import Runtime
from libs.store import control
from libs.store.borrowing import borrow_patiently
from libs.store.connections import reserve
from libs.store.errors import SchemaAway, StoreUnavailable
from libs.store.notify import Listener
from libs.store.planner import Planner
from libs.store.planning import Wishes, look
from libs.store.pool import AnyConnection, Pool
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.connector.disk import Disk
from services.connector.holdings import Holdings
from services.connector.remembered import remember
from services.connector.settings import Settings

log = get_logger(__name__)

ACQUIRE_S_MAX = 5.0
ASSIGNMENT_S_MAX = 5.0
"""Seconds that planning and following wait for a volume; while it answers nothing they do not ask it again."""


@dataclass(slots=True)
class Shard:
    """What the loops of one connector share.

    Attributes:
        draining: SIGTERM came: slots are to be taken over by others. ended: nothing is to be captured any more.
        beating: held by whoever writes our lease. given_back: it is over for good. disk: writes the assignment.
        is_away: the control tables cannot be read. is_unfit: by their schema; said beside the first reason.
        fits: set once the database has a schema for this code; until then nothing is asked of its tables. waits_for: why not.
        beat_at_s, grows_at_s: the last heartbeat, and from when on connections may be reserved; monotonic, seconds.
    """

    settings: Settings
    runtime: Runtime
    pool: Pool
    instance: UUID
    holdings: Holdings
    planner: Planner
    draining: bool = False
    registered: bool = False
    is_away: bool = False
    is_unfit: bool = False
    others_drain: bool = False
    settled: bool = False
    beat_at_s: float | None = None
    grows_at_s: float = 0.0
    waits_for: str = "the control tables were not reached yet"
    fits: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    beating: asyncio.Lock = field(default_factory=asyncio.Lock)
    disk: Disk = field(default_factory=Disk)
    given_back: bool = False

    @property
    def name(self) -> str:
        return self.settings.connector.shard

    def away(self, task: str, error: StoreUnavailable) -> None:
        """Note that the database is away; capture goes on."""
        self.planner.unseen()
        self.runtime.metrics.task_faults_total.labels(task=task).inc()
        is_schema = isinstance(error, SchemaAway)
        if not self.is_away or is_schema > self.is_unfit:
            self.is_away, self.is_unfit = True, is_schema
            log.warning("control_away", task=task, error=str(error))

    def beat(self, now_s: float) -> bool:
        """Note a heartbeat; True when connections may be reserved: not for one lease after a break in which others' ended."""
        if (
            self.beat_at_s is not None
            and now_s - self.beat_at_s > control.LEASE_S - control.HEARTBEAT_S
        ):
            self.grows_at_s = now_s + control.LEASE_S
        self.beat_at_s = now_s
        return now_s >= self.grows_at_s

    def back(self) -> None:
        """Note that it answers."""
        if self.is_away:
            self.is_away = self.is_unfit = False
            log.info("control_back")


async def heartbeat_once(shard: Shard) -> None:
    """Register at the first turn, then prolong the lease; a lease that is lost is begun again.

    Raises:
        StoreUnavailable: the database is away, or its schema is not known to fit.
    """
    own = shard.settings.connector
    if not shard.fits.is_set():
        raise StoreUnavailable(shard.waits_for)
    async with shard.beating, borrow_patiently(shard.pool, ACQUIRE_S_MAX) as conn:
        if shard.given_back:
            return
        if not shard.registered:
            await control.register(
                conn,
                own.shard,
                shard.instance,
                template_hash=own.template_hash,
                capacity=own.capacity,
            )
            shard.registered = True
        load = float(len(shard.holdings.slots))
        kept = await control.heartbeat(
            conn, own.shard, shard.instance, load=load, draining=shard.draining
        )
        shard.others_drain = await control.others_drain(conn, own.shard)
        if not kept:
            await _begin_lease_again(shard, conn)
        await _reserve(shard, conn)


async def end_lease(shard: Shard) -> None:
    """Give the last slots and the lease back; a heartbeat that is on its way comes before, and none after it.

    Raises:
        StoreUnavailable: the database is away.
    """
    async with shard.beating, borrow_patiently(shard.pool, ACQUIRE_S_MAX) as conn:
        shard.given_back = True
        await shard.holdings.tell_released(conn)
        await control.deregister(conn, shard.name, shard.instance)


async def _reserve(shard: Shard, conn: AnyConnection) -> None:
    """Say which connections are open, and have those counted that a slot may need when it must be split."""
    settings, extra = shard.settings, shard.holdings.extra
    extra.limit = await reserve(
        conn,
        shard.name,
        shard.instance,
        held=shard.holdings.held,
        reserved=extra.limit,
        wanted=settings.connector.extra_connections_max,
        slots=settings.slot_names(),
        connections_max=settings.slots.connections_max,
        may_grow=shard.beat(shard.runtime.clock.monotonic()),
    )


async def _begin_lease_again(shard: Shard, conn: AnyConnection) -> None:
    """Register anew when our row is gone (the zone's database was emptied or restored, or it forgot us)."""
    own = shard.settings.connector
    if await control.register_again(
        conn, own.shard, shard.instance, template_hash=own.template_hash, capacity=own.capacity
    ):
        log.warning("lease_begun_again", shard=own.shard)
    else:
        # A doubled capture is free; two processes that fight for one name are not, and only a person can tell them apart.
        log.error("shard_name_taken", shard=own.shard)


async def plan_once(shard: Shard) -> None:
    """Plan if it is ours to plan: take the row, read, decide, write.

    Raises:
        StoreUnavailable: the database is away.
    """
    settings, clock = shard.settings, shard.runtime.clock
    wishes = Wishes(settings.slot_names(), settings.slots.connections_max)
    async with borrow_patiently(shard.pool, ACQUIRE_S_MAX) as conn:
        if shard.draining:
            return
        found = await look(
            conn,
            shard.planner,
            wishes,
            now_s=clock.monotonic(),
            settle_s=settings.connector.settle_s,
        )
    if found is not None and found.plan is not None and found.written and not found.is_settled:
        log.info("planned", **found.plan.counts())


async def follow_once(shard: Shard) -> None:
    """Serve what the rows say, and remember it; what a draining shard gives up is not what it is to serve when it is back.

    Raises:
        StoreUnavailable: the database is away.
    """
    holdings = shard.holdings
    async with borrow_patiently(shard.pool, ACQUIRE_S_MAX) as conn:
        await holdings.follow(conn)
    directory = shard.settings.connector.state_dir
    changed, holdings.changed = holdings.changed, False
    if changed and directory and not shard.draining:
        write = partial(remember, Path(directory), shard.name, holdings.assignment())
        try:
            await shard.disk.do(write, hangs_s=ASSIGNMENT_S_MAX)
        except OSError as error:
            log.warning("assignment_not_kept", error=str(error))


async def keep_heartbeat(shard: Shard) -> None:
    """Heartbeats until the end, from when the schema is known to fit."""
    await first_of(shard.fits, shard.ended)
    while not shard.ended.is_set():
        try:
            await heartbeat_once(shard)
        except StoreUnavailable as error:
            shard.away("heartbeat", error)
        await first_of(shard.ended, timeout_s=shard.settings.connector.heartbeat_s)


async def keep_following(shard: Shard, wake: Listener) -> None:
    """Plan and follow until the end: every second, and when woken."""
    while not shard.ended.is_set():
        wake.event.clear()
        try:
            await plan_once(shard)
            await follow_once(shard)
            shard.back()
        except StoreUnavailable as error:
            shard.away("follow", error)
        await first_of(shard.ended, wake.event, timeout_s=shard.settings.connector.plan_s)


async def relay(shard: Shard, source: Listener, target: Listener) -> None:
    """Wake the follower for another channel too."""
    while not shard.ended.is_set():
        if await source.wait(1.0):
            target.event.set()
