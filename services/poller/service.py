"""Composition root of the poller: what is opened, in which order, and what runs."""

from collections.abc import Callable
from typing import Final
from uuid import uuid4

from libs.marketdata.tables import Family
from libs.marketdata.units import SECOND
from libs.runtime.leasing import keep_lease, leased
from libs.runtime.rest import Rest, open_rest
from libs.runtime.service import Runtime
from libs.runtime.stores import open_store
from libs.store.errors import LaneLost
from libs.store.lanes import LaneWriter
from libs.store.leases import Lease
from libs.store.notify import Notifier
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from services.poller import tasks
from services.poller.books import StoredBooks
from services.poller.checking import Checker
from services.poller.following import Follower
from services.poller.healing import Healer, limits_of
from services.poller.pace import Pace
from services.poller.rounds import Rounds
from services.poller.settings import Settings
from services.poller.tape import Tape

PROCESS: Final = "poller"


async def run(settings: Settings, runtime: Runtime) -> None:
    """Run the poller until `runtime.stop`.

    Raises:
        AuthRejected, SchemaMismatch, StoreConflict, LeaseLost: the process ends.
        StoreUnavailable: the database was away at the end.
    """
    own = settings.poller
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
    own, clock = settings.poller, runtime.clock
    notifier = Notifier(pool)
    stored = StoredBooks(int(own.full_s * SECOND))

    def scribe_of(family: Family, on_lost: Callable[[LaneLost], None]) -> Scribe:
        lane = LaneWriter(
            pool, family=family, process=PROCESS, instance=lease.holder, notifier=notifier
        )
        return Scribe(
            lane,
            family.value,
            now=clock.now,
            stop=runtime.stop,
            metrics=runtime.metrics,
            on_lost=on_lost,
        )

    books = scribe_of(Family.REST, lambda _: stored.forget())
    trades = scribe_of(Family.TRADES, lambda _: None)
    pace = Pace(rest.bucket.rate)
    checker = Checker(pool, clock, runtime.metrics, own)
    rounds = Rounds(runtime, rest, pace, pool, books, stored, checker, own)
    healer = _healer(settings, runtime, pool, rest, trades, lease)
    _describe(runtime, rounds, healer, checker, rest, pace)
    runtime.health.set_ready(False, "taking the first round")
    try:
        async with runtime.tasks() as started:
            started.start("keep-lease", keep_lease(runtime, lease))
            started.start("notify-batches", notifier.run(runtime.stop))
            pace.allow(await rest.respect_account_limits())
            started.start("keep-pace", tasks.keep_pace(runtime, rest, pace))
            started.start("keep-limits", tasks.keep_limits(runtime, rest, pace))
            started.start("poll-books", tasks.poll_books(runtime, rounds))
            started.start("heal-trades", tasks.heal_trades(runtime, healer, own.repair_s))
            started.start("check-books", tasks.check_books(runtime, checker, own.check_delay_s))
    finally:
        await books.close()
        await trades.close()


def _healer(
    settings: Settings, runtime: Runtime, pool: Pool, rest: Rest, trades: Scribe, lease: Lease
) -> Healer:
    limits = limits_of(settings.poller)
    capture = settings.capture.capture_filter()
    tape = Tape(rest.client, pool, trades, capture, settings.batches.trades_rows)
    follower = Follower(pool, limits, lease)
    return Healer(follower, tape, pool, runtime.clock, runtime.metrics, limits)


def _describe(
    runtime: Runtime, rounds: Rounds, healer: Healer, checker: Checker, rest: Rest, pace: Pace
) -> None:
    """Say in /health what the poller is doing."""
    runtime.health.set("snapshots", rounds.facts)
    runtime.health.set("repair", healer.facts)
    runtime.health.set("books", checker.facts)
    runtime.health.set(
        "exchange",
        lambda: {**rest.describe(), "reads_per_s_allowed": pace.allowed, "slowed": pace.slowed},
    )
