"""Composition root of the poller: what is opened, in which order, and what runs."""

from collections.abc import Callable
from typing import Final
from uuid import uuid4

from libs.marketdata.tables import Family
from libs.marketdata.units import SECOND
from libs.runtime.leasing import keep_lease, leased
from libs.runtime.rest import Rest, open_rest
from libs.runtime.service import Runtime
from libs.store.errors import LaneLost
from libs.store.lanes import LaneWriter
from libs.store.leases import Lease
from libs.store.notify import Notifier
from libs.store.pool import Pool, open_pool
from libs.store.scribe import Scribe
from services.poller import tasks
from services.poller.books import StoredBooks
from services.poller.healing import Healer
from services.poller.rounds import Rounds
from services.poller.settings import Settings

PROCESS: Final = "poller"


async def run(settings: Settings, runtime: Runtime) -> None:
    """Run the poller until `runtime.stop`.

    Raises:
        AuthRejected, SchemaMismatch, StoreConflict, LeaseLost: the process ends.
        StoreUnavailable: the database was away at the end.
    """
    own = settings.poller
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
    rounds = Rounds(runtime, rest.client, pool, books, stored, own)
    healer = Healer(
        rest.client,
        pool,
        trades,
        clock,
        settings.capture.capture_filter(),
        own,
        settings.batches.trades_rows,
    )
    _describe(runtime, rounds, healer, rest)
    await healer.load()
    runtime.health.set_ready(False, "taking the first round")
    try:
        async with runtime.tasks() as started:
            started.start("keep-lease", keep_lease(runtime, lease))
            started.start("notify-batches", notifier.run(runtime.stop))
            await rest.respect_account_limits()
            started.start("poll-books", tasks.poll_books(runtime, rounds))
            started.start("heal-trades", tasks.heal_trades(runtime, healer, own.repair_s))
    finally:
        await books.close()
        await trades.close()


def _describe(runtime: Runtime, rounds: Rounds, healer: Healer, rest: Rest) -> None:
    """Say in /health what the poller is doing."""
    runtime.health.set(
        "snapshots",
        lambda: {
            "rounds": rounds.rounds,
            "markets": rounds.markets,
            "taken": rounds.taken,
            "unchanged": rounds.unchanged,
            "missing": rounds.missing,
            "failed": rounds.failed,
            "round_s": rounds.round_s,
            "period_s_achieved": rounds.period_s_achieved,
            "last_fault": rounds.last_fault,
        },
    )
    runtime.health.set(
        "repair",
        lambda: {
            "waiting": healer.waiting,
            "repaired": healer.repaired,
            "trades": healer.trades,
            "unreadable": healer.unreadable,
        },
    )
    runtime.health.set("exchange", rest.describe)
