"""Composition root of the registry: what is opened, in which order, and what runs."""

from typing import Any
from uuid import uuid4

from libs.marketdata.tables import Family
from libs.marketdata.units import SECOND
from libs.runtime.leasing import keep_lease, leased
from libs.runtime.rest import Rest, open_rest
from libs.runtime.service import Runtime
from libs.store.catalogue import MARKETS_CHANNEL
from libs.store.errors import LaneLost
from libs.store.lanes import LaneWriter
from libs.store.leases import Lease
from libs.store.notify import Listener, Notifier
from libs.store.pool import Pool, open_pool
from libs.store.scribe import Scribe
from services.registry import tasks
from services.registry.catalogue import Rules
from services.registry.debug import markets_page
from services.registry.follow import LifecycleFollower
from services.registry.housekeeping import PROCESS, Housekeeper, StatusRecorder
from services.registry.keeper import Keeper
from services.registry.settings import Settings
from services.registry.sync import Syncer


async def run(settings: Settings, runtime: Runtime) -> None:
    """Run the registry until `runtime.stop`.

    Raises:
        AuthRejected, SchemaMismatch, StoreConflict, LeaseLost, LeaseNotHeld: the process ends.
        StoreUnavailable: the database was away at the end.
    """
    own = settings.registry
    async with (
        open_pool(settings.store.target(), stop=runtime.stop, application=PROCESS) as pool,
        open_rest(settings.exchange, settings.account, own.read_share, runtime) as rest,
        leased(pool, PROCESS, uuid4(), own.lease_s, runtime) as lease,
    ):
        if lease is not None:
            await _run_with_lease(settings, runtime, pool, rest, lease)


async def _run_with_lease(
    settings: Settings, runtime: Runtime, pool: Pool, rest: Rest, lease: Lease
) -> None:
    own, clock = settings.registry, runtime.clock
    committed, moved = Notifier(pool), Notifier(pool, MARKETS_CHANNEL)
    lane = LaneWriter(
        pool, family=Family.REST, process=PROCESS, instance=lease.holder, notifier=committed
    )
    listener = Listener(pool)

    def lane_lost(lost: LaneLost) -> None:
        if lost.reason != "closed":
            syncer.forget()

    scribe = Scribe(
        lane,
        Family.REST.value,
        now=clock.now,
        stop=runtime.stop,
        metrics=runtime.metrics,
        on_lost=lane_lost,
    )
    rules = Rules(
        settings.capture.capture_filter(),
        settings.slots.orderbook,
        int(own.open_ahead_s * SECOND),
        {},
        {},
    )
    keeper = Keeper(pool, scribe, moved, clock, rules, int(own.cache_s * SECOND), lease)
    syncer = Syncer(rest.client, keeper, pool, clock, settings, lease)
    follower = LifecycleFollower(pool, keeper, clock, lease)
    housekeeper = Housekeeper(pool, clock, lease.holder, own.lease_s, own.ledger_keep_s)
    recorder = StatusRecorder(rest.client, scribe)
    counts: dict[str, int] = {}
    _describe(runtime, pool, keeper, syncer, follower, housekeeper, recorder, rest, counts)
    await keeper.load()
    await syncer.load()
    await follower.load()
    runtime.health.set_ready(False, "listing the exchange")
    try:
        async with runtime.tasks() as started:
            started.start("keep-lease", keep_lease(runtime, lease))
            started.start("notify-batches", committed.run(runtime.stop))
            started.start("notify-markets", moved.run(runtime.stop))
            started.start("listen", listener.run(runtime.stop))
            poll_s = own.lifecycle_poll_ms / 1000
            started.start(
                "follow-lifecycle", tasks.follow_lifecycle(runtime, follower, listener, poll_s)
            )
            started.start("advance-clock", tasks.advance_clock(runtime, keeper))
            started.start("count-markets", tasks.count(runtime, pool, counts))
            tasks.start_periodic(started, runtime, own, syncer, recorder, housekeeper)
            await rest.respect_account_limits()
            started.start(
                "sync-catalogue", tasks.sync_catalogue(runtime, syncer, own.incremental_s)
            )
        await follower.save()
    finally:
        await scribe.close()


def _describe(
    runtime: Runtime,
    pool: Pool,
    keeper: Keeper,
    syncer: Syncer,
    follower: LifecycleFollower,
    housekeeper: Housekeeper,
    recorder: StatusRecorder,
    rest: Rest,
    counts: dict[str, int],
) -> None:
    """Say in /health what the registry is doing, and answer /debug/markets."""
    health = runtime.health
    health.set("markets", lambda: dict(counts))
    health.set("catalogue", lambda: dict(keeper.counts))
    health.set("waiting", lambda: {"clock": len(keeper.due), "looks": len(keeper.looks)})
    health.set(
        "listing",
        lambda: {
            "full_at": syncer.full_at,
            "updated_from": syncer.updated_from,
            "full": syncer.full_listings,
            "incremental": syncer.incremental_listings,
            "markets": syncer.markets_listed,
        },
    )
    health.set("lifecycle", lambda: {"rows": follower.rows, "last_lag_ms": follower.last_lag_ms})
    health.set(
        "exchange",
        lambda: {
            "exchange_active": recorder.exchange_active,
            "trading_active": recorder.trading_active,
            **rest.describe(),
        },
    )
    health.set(
        "house",
        lambda: {
            "rounds": housekeeper.rounds,
            "partitions_made": housekeeper.partitions_made,
            "partitions_dropped": housekeeper.partitions_dropped,
            "lanes_closed": housekeeper.lanes_closed,
            "batches_forgotten": housekeeper.batches_forgotten,
            "lanes_forgotten": housekeeper.lanes_forgotten,
            "default_rows": housekeeper.default_rows,
        },
    )

    async def page(query: Any) -> Any:
        return await markets_page(pool, query)

    health.add_page("markets", page)
