"""Rounds of snapshots: every open market's book by the batch endpoint, evenly spread, with what was achieved measured.

A round that the read budget cannot do within the period takes longer, and the next begins after it: no backlog, and the
figures say so.
"""

import asyncio
from typing import Any, Final

from libs.exchange.errors import AuthRejected, ExchangeError
from libs.exchange.rest import BOOKS_PATH
from libs.marketdata.units import SECOND
from libs.runtime.rest import Rest
from libs.runtime.service import Runtime
from libs.store.catalogue import lend
from libs.store.catalogue_views import read_busiest
from libs.store.errors import StoreUnavailable
from libs.store.poll_markets import read_open_markets
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from libs.telemetry.logging import get_logger
from services.poller.books import StoredBooks, rejection
from services.poller.checking import Checker
from services.poller.pace import Pace
from services.poller.plan import Request, attainable_s, choose, plan_round, split
from services.poller.settings import PollerSettings

log = get_logger(__name__)

EMPTY_WAIT_S: Final = 1.0
"""Seconds until the catalogue is asked again when it has no open market."""
BUSIEST_MAX: Final = 20_000
LATE: Final = 1.1
"""A period achieved that is longer than the wanted one by this factor is worth a warning."""


class Rounds:
    """Takes round after round.

    Attributes: taken, unchanged, missing, failed count rows, rows without ladders, markets the exchange left out and
    markets of failed requests since the start; markets is the present round's number; round_s is how long the last
    round took, period_s_achieved the time between the starts of the last two, period_s_attainable what the read budget
    allows.
    """

    def __init__(
        self,
        runtime: Runtime,
        rest: Rest,
        pace: Pace,
        pool: Pool,
        scribe: Scribe,
        stored: StoredBooks,
        checker: Checker,
        settings: PollerSettings,
    ) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._rest = rest
        self._pace = pace
        self._pool = pool
        self._scribe = scribe
        self._stored = stored
        self._checker = checker
        self._settings = settings
        self._free = asyncio.Semaphore(settings.concurrency)
        self._started_s: float | None = None
        self.rounds = self.markets = self.taken = self.unchanged = self.missing = self.failed = 0
        self.round_s: float | None = None
        self.period_s_achieved: float | None = None
        self.period_s_attainable: float | None = None
        self.last_fault: str | None = None

    def facts(self) -> dict[str, Any]:
        """Say in /health what the rounds achieve."""
        return {
            "rounds": self.rounds,
            "markets": self.markets,
            "taken": self.taken,
            "unchanged": self.unchanged,
            "missing": self.missing,
            "failed": self.failed,
            "round_s": self.round_s,
            "period_s_wanted": self._settings.period_s,
            "period_s_attainable": self.period_s_attainable,
            "period_s_achieved": self.period_s_achieved,
            "last_fault": self.last_fault,
        }

    async def round_once(self) -> None:
        """Take one round and wait until the next is due; waits shortly when no market is open."""
        tickers = await self._choose()
        if not tickers:
            await self._runtime.sleep(min(EMPTY_WAIT_S, self._settings.period_s))
            return
        if self._pace.is_full:
            self._pace.allow(await self._rest.respect_account_limits())
        started_s = self._clock.monotonic()
        self._begin(started_s, tickers)
        failed = self.failed
        await self._checker.begin_round(
            sorted(tickers), self.period_s_achieved or self._settings.period_s
        )
        await self._take(plan_round(tickers, self._settings.period_s, self._books_per_s), started_s)
        if self._runtime.stop.is_set():
            return
        self._end(started_s, self.failed - failed)
        await self._runtime.sleep(
            max(0.0, started_s + self._settings.period_s - self._clock.monotonic())
        )

    @property
    def _books_per_s(self) -> float:
        """Batches of books that our share pays for, a second."""
        return self._pace.rate / self._rest.cost(BOOKS_PATH)

    async def _choose(self) -> list[str]:
        limit = self._settings.markets_max or BUSIEST_MAX
        since = self._clock.now() - int(self._settings.period_s * SECOND)
        async with lend(self._pool) as conn:
            found = await read_open_markets(conn)
            busiest = await read_busiest(conn, since, limit)
        return choose(found.active, found.others, busiest, self._settings.markets_max)

    def _begin(self, started_s: float, tickers: list[str]) -> None:
        """Measure the period: from the start of the last round to the start of this one."""
        wanted = self._settings.period_s
        self.period_s_attainable = attainable_s(len(split(tickers)), wanted, self._books_per_s)
        if self._started_s is not None:
            self.period_s_achieved = started_s - self._started_s
            self._runtime.metrics.snapshot_period_seconds.set(self.period_s_achieved)
            if self.period_s_achieved > LATE * wanted:
                log.warning(
                    "snapshots_behind", period_s=round(self.period_s_achieved, 1), wanted_s=wanted,
                    attainable_s=round(self.period_s_attainable, 1), markets=self.markets,
                )  # fmt: skip
        self._started_s, self.markets = started_s, len(tickers)
        self._stored.keep_only(set(tickers))

    def _end(self, started_s: float, failed: int) -> None:
        self.rounds += 1
        self.round_s = self._clock.monotonic() - started_s
        self._runtime.metrics.snapshot_cycle_seconds.observe(self.round_s)
        log.info("round_taken", markets=self.markets, seconds=round(self.round_s, 2), failed=failed)

    async def _take(self, requests: list[Request], started_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            for request in requests:
                wait_s = started_s + request.after_s - self._clock.monotonic()
                if wait_s > 0 and not await self._runtime.sleep(wait_s):
                    return
                await self._free.acquire()
                if self._runtime.stop.is_set():
                    self._free.release()
                    return
                group.create_task(self._request(request), name="snapshot-request")

    async def _request(self, request: Request) -> None:
        """Ask for the books of one request and store them; a failure costs these markets this round."""
        try:
            await self.take_once(request.tickers)
        except AuthRejected:
            raise
        except StoreUnavailable:
            if not self._runtime.stop.is_set():
                raise
        except ExchangeError as error:
            if self._runtime.stop.is_set():
                return
            self.failed += len(request.tickers)
            self.last_fault = f"{type(error).__name__}: {error}"
            self._runtime.metrics.task_faults_total.labels("snapshot-request").inc()
            log.warning("snapshots_failed", markets=len(request.tickers), error=self.last_fault)
        finally:
            self._free.release()

    async def take_once(self, tickers: tuple[str, ...]) -> None:
        """Read and store the books of at most 100 markets.

        Raises:
            ExchangeError: the books were not to be had.
            StoreUnavailable: stopping, and the database is away.
        """
        page = await self._rest.client.orderbooks(tickers)
        converted = self._stored.convert(tickers, page.items, page.requested_at, page.received_at)
        unread = [
            rejection(None, item.data.decode(errors="replace"), item.reason, page.received_at)
            for item in page.rejected
        ]
        rejected = [*converted.rejected, *unread]
        if converted.rows or rejected:
            await self._scribe.write(
                {"orderbook_snapshots": converted.rows, "rejected_frames": rejected}
            )
        self._stored.committed(converted.rows)
        self._checker.offer(page.items, page.requested_at, page.received_at)
        self._runtime.health.set_ready(True)
        self.taken += len(converted.rows)
        self.unchanged += sum(row.yes is None for row in converted.rows)
        self.missing += len(converted.missing)
        self._runtime.metrics.snapshots_taken_total.inc(len(converted.rows))
        for _ in rejected:
            self._runtime.metrics.rejected_frames_total.labels("rest_book").inc()
