"""Composition root of the registry: what is opened, in which order, and what runs."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from libs.marketdata.tables import Family
from libs.marketdata.units import SECOND
from libs.runtime.leasing import keep_lease, leased
from libs.runtime.rest import Rest, open_rest
from libs.runtime.service import EternalTasks, Runtime
from libs.runtime.stores import open_store
from libs.store.catalogue import MARKETS_CHANNEL
from libs.store.errors import LaneLost
from libs.store.lanes import LaneWriter
from libs.store.leases import Lease
from libs.store.notify import Listener, Notifier
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from services.registry import tasks
from services.registry.catalogue import Rules
from services.registry.deaths import Deaths
from services.registry.debug import as_html, markets_page
from services.registry.exchange_state import ExchangeWatch
from services.registry.follow import LifecycleFollower
from services.registry.housekeeping import PROCESS, Housekeeper
from services.registry.keeper import Keeper
from services.registry.looking import Looker
from services.registry.moves import Mover
from services.registry.packing import Packer
from services.registry.settings import Settings
from services.registry.sync import Syncer


@dataclass(frozen=True, slots=True)
class Parts:
    """What the registry is made of."""

    committed: Notifier
    moved: Notifier
    listener: Listener
    scribe: Scribe
    keeper: Keeper
    syncer: Syncer
    looker: Looker
    follower: LifecycleFollower
    housekeeper: Housekeeper
    deaths: Deaths
    watch: ExchangeWatch
    mover: Mover
    packer: Packer


async def run(settings: Settings, runtime: Runtime) -> None:
    """Run the registry until `runtime.stop`.

    Raises:
        AuthRejected, SchemaMismatch, StoreConflict, LeaseLost, LeaseNotHeld: the process ends.
        StoreUnavailable: the database was away at the end.
    """
    own = settings.registry
    async with (
        open_store(settings.store, "gatherer", runtime, application=PROCESS) as pool,
        open_rest(settings.exchange, settings.account, own.read_share, runtime) as rest,
        leased(pool, PROCESS, uuid4(), own.lease_s, runtime) as lease,
    ):
        if lease is not None:
            await _run_with_lease(settings, runtime, pool, rest, lease)


async def _run_with_lease(
    settings: Settings, runtime: Runtime, pool: Pool, rest: Rest, lease: Lease
) -> None:
    parts = _put_together(settings, runtime, pool, rest, lease)
    runtime.health.set_ready(False, "reading the catalogue")
    _describe(runtime, pool, rest, parts)
    await parts.keeper.load()
    await parts.syncer.load()
    await parts.follower.load()
    await parts.watch.load()
    runtime.health.set_ready(False, "listing the exchange")
    try:
        async with runtime.tasks() as started:
            started.start("keep-lease", keep_lease(runtime, lease))
            _start_loops(started, settings, runtime, parts)
            await rest.respect_account_limits()
            started.start("keep-limits", rest.keep_to_account_limits(runtime))
            started.start(
                "sync-catalogue",
                tasks.sync_catalogue(runtime, parts.syncer, settings.registry.incremental_s),
            )
        await parts.follower.save()
    finally:
        await parts.scribe.close()


def _put_together(
    settings: Settings, runtime: Runtime, pool: Pool, rest: Rest, lease: Lease
) -> Parts:
    own, clock = settings.registry, runtime.clock
    committed, moved = Notifier(pool), Notifier(pool, MARKETS_CHANNEL)

    def lane_lost(lost: LaneLost) -> None:
        if lost.reason != "closed":
            syncer.forget()
            deaths.forget()

    scribe = Scribe(
        LaneWriter(
            pool, family=Family.REST, process=PROCESS, instance=lease.holder, notifier=committed
        ),
        Family.REST.value,
        now=clock.now,
        stop=runtime.stop,
        metrics=runtime.metrics,
        on_lost=lane_lost,
    )
    keeper = Keeper(pool, scribe, moved, clock, _rules(settings), int(own.cache_s * SECOND), lease)
    deaths = Deaths(pool, scribe, clock.now)
    watch = ExchangeWatch(rest.client, scribe, pool, clock, lease, runtime.metrics)
    syncer = Syncer(rest.client, keeper, pool, clock, settings, lease)
    looker = Looker(
        rest.client, keeper, pool, clock, int(own.cache_s * SECOND), lambda: watch.is_paused
    )
    return Parts(
        committed=committed,
        moved=moved,
        listener=Listener(pool),
        scribe=scribe,
        keeper=keeper,
        syncer=syncer,
        looker=looker,
        follower=LifecycleFollower(pool, keeper, clock, lease, runtime.metrics),
        housekeeper=Housekeeper(pool, clock, lease.holder, own.lease_s, own.ledger_keep_s),
        deaths=deaths,
        watch=watch,
        mover=Mover(pool, moved, lease, int(own.move_settle_s * SECOND)),
        packer=Packer(runtime, pool, own.pack_after_s),
    )


def _rules(settings: Settings) -> Rules:
    return Rules(
        settings.capture.capture_filter(),
        settings.slots.orderbook,
        int(settings.registry.open_ahead_s * SECOND),
        {},
        {},
    )


def _start_loops(started: EternalTasks, settings: Settings, runtime: Runtime, parts: Parts) -> None:
    """Start every loop but the lease's and the listing, which waits until our share of the account's reads is known."""
    own = settings.registry
    started.start("notify-batches", parts.committed.run(runtime.stop))
    started.start("notify-markets", parts.moved.run(runtime.stop))
    started.start("listen", parts.listener.run(runtime.stop))
    poll_s = own.lifecycle_poll_ms / 1000
    started.start(
        "follow-lifecycle", tasks.follow_lifecycle(runtime, parts.follower, parts.listener, poll_s)
    )
    started.start("advance-clock", tasks.advance_clock(runtime, parts.keeper))
    started.start("count-markets", tasks.count(runtime, parts.keeper))
    tasks.start_periodic(
        started, runtime, own, parts.keeper, parts.looker, parts.watch, parts.housekeeper, parts.deaths,
        parts.mover, parts.packer,
    )  # fmt: skip


def _describe(runtime: Runtime, pool: Pool, rest: Rest, parts: Parts) -> None:
    """Say in /health what the registry is doing, and answer /debug/markets."""
    health, keeper = runtime.health, parts.keeper
    health.set("markets", keeper.markets.as_dict)
    health.set("catalogue", lambda: dict(keeper.counts))
    health.set("looks", parts.looker.facts)
    health.set("listing", parts.syncer.facts)
    health.set("lifecycle", parts.follower.facts)
    health.set("exchange", lambda: {**parts.watch.facts(), **rest.describe()})
    health.set("moves", parts.mover.facts)
    health.set("house", lambda: parts.housekeeper.facts() | parts.deaths.facts())
    health.set("columns", parts.packer.facts)

    async def page(query: Any) -> Any:
        return await markets_page(pool, query, keeper.markets.as_dict())

    health.add_page("markets", page, as_html)
