"""Listing the exchange by REST: the whole catalogue, and what changed since.

Each call is one turn of a task and may be repeated from its beginning: what is already known writes nothing again.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from libs.exchange.rest import RestClient
from libs.exchange.rest_wire import Json, Page
from libs.marketdata.units import DAY, SECOND
from libs.runtime.clock import Clock
from libs.store.catalogue import get_state, lend, set_state
from libs.store.catalogue_views import read_wanted
from libs.store.leases import Lease
from libs.store.pool import Pool
from libs.telemetry.logging import get_logger
from services.registry.keeper import Keeper
from services.registry.listing import time_of
from services.registry.progress import Progress
from services.registry.settings import Settings

log = get_logger(__name__)

STATE_KEY: Final = "listing"
SERIES_AT_ONCE: Final = 1_000
CLOSED_LATELY: Final = 2 * DAY
"""How far back a full listing takes closed markets, microseconds: what a registry that was away has missed."""


class Syncer:
    """Brings listings to the keeper and remembers how far they reached."""

    def __init__(
        self,
        rest: RestClient,
        keeper: Keeper,
        pool: Pool,
        clock: Clock,
        settings: Settings,
        lease: Lease,
    ) -> None:
        self._lease = lease
        self._rest = rest
        self._keeper = keeper
        self._pool = pool
        self._clock = clock
        self._own = settings.registry
        self._fingerprint = settings.fingerprint()
        self._combos = settings.capture.combos
        self._needs_no_events = settings.capture.capture_filter().is_everything
        self._forgotten = 0
        self.full_at: int | None = None
        self.updated_from: int | None = None
        self.markets_listed = 0
        self.full_listings = 0
        self.incremental_listings = 0
        self.progress = Progress()

    def facts(self) -> dict[str, Any]:
        """Say in /health what was listed."""
        return {
            "full_at": self.full_at,
            "updated_from": self.updated_from,
            "full": self.full_listings,
            "incremental": self.incremental_listings,
            "markets": self.markets_listed,
            "progress": self.progress.facts(),
        }

    async def load(self) -> None:
        """Recall the last listing; one made under other rules does not count."""
        async with lend(self._pool) as conn:
            text = await get_state(conn, STATE_KEY)
        state = json.loads(text) if text else {}
        self._keeper.is_first_listing = not state
        if state and state["fingerprint"] != self._fingerprint:
            self._keeper.place_anew()
        elif state:
            self.full_at, self.updated_from = state["full_at"], state["updated_from"]

    def forget(self) -> None:
        """Say that the database lost what was listed: a full listing is due, also after one that goes on."""
        self._forgotten += 1
        self.full_at = None
        self._keeper.markets.forget()

    async def sync_once(self) -> None:
        """List everything when that is due, else what changed."""
        now = self._clock.now()
        if self.full_at is None or now - self.full_at >= self._own.full_sync_s * SECOND:
            await self.list_all()
        else:
            await self.list_changed()

    async def list_all(self) -> None:
        """List every series, every event and every market that trades or will, or closed lately; then ask about what is
        wanted and was not listed. Events come last unless the filter judges by them: markets are waited for.
        """
        started, forgotten = self._clock.now(), self._forgotten
        self.progress.begin(started)
        try:
            self.progress.enter("series")
            await self._take_series(await self._rest.series())
            if not self._needs_no_events:
                await self._list_events()
            seen = await self._list_markets(started)
            if self._needs_no_events:
                await self._list_events()
        finally:
            self.progress.end()
        async with lend(self._pool) as conn:
            wanted = await read_wanted(conn)
        unseen = [ticker for ticker in wanted if ticker not in seen]
        for ticker in unseen:
            self._keeper.looks.put_earlier(ticker, self._clock.now())
        self.full_listings += 1
        await self._remember(started if forgotten == self._forgotten else None, started)
        log.info("catalogue_listed", markets=len(seen), unlisted=len(unseen),
                 seconds=round((self._clock.now() - started) / SECOND, 2))  # fmt: skip

    async def _list_events(self) -> None:
        for status in ("open", "unopened"):
            self.progress.enter(f"events {status}")
            await self._take_events(self._rest.events(status=status))
        if self._combos:
            self.progress.enter("events multivariate")
            await self._take_events(self._rest.multivariate_events())

    async def _list_markets(self, started: int) -> set[str]:
        """List the markets; return their tickers."""
        seen: set[str] = set()
        for status in ("open", "unopened", "paused", "closed"):
            self.progress.enter(f"markets {status}")
            pages = self._rest.markets(status=status, mve_filter=self._mve_filter)
            since = started - CLOSED_LATELY if status == "closed" else None
            seen.update(await self._take_markets(pages, closed_since=since))
        return seen

    async def list_changed(self) -> None:
        """List what the exchange changed since the last listing, with some overlap."""
        assert self.updated_from is not None
        started = self._clock.now()
        since = self.updated_from - int(self._own.overlap_s * SECOND)
        await self._take_series(await self._rest.series(min_updated_ts=since))
        await self._take_events(self._rest.events(min_updated_ts=since))
        await self._take_markets(
            self._rest.markets(min_updated_ts=since, mve_filter=self._mve_filter)
        )
        self.incremental_listings += 1
        await self._remember(self.full_at, started)

    async def _take_series(self, page: Page[Json]) -> None:
        """Give the series to the keeper, in parts: there are thousands in one answer."""
        for part in range(0, len(page.items), SERIES_AT_ONCE):
            await self._keeper.list_series(page.items[part : part + SERIES_AT_ONCE])

    async def _take_events(self, pages: AsyncIterator[Page[Json]]) -> None:
        async def take(page: Page[Json]) -> None:
            if page.items:
                await self._keeper.list_events(page.items)

        await self._take_pages(pages, take)

    async def _take_markets(
        self, pages: AsyncIterator[Page[Json]], closed_since: int | None = None
    ) -> list[str]:
        """Give pages of markets to the keeper, only those that closed since then (microseconds) if that is said."""
        tickers: list[str] = []

        async def take(page: Page[Json]) -> None:
            items = [
                item
                for item in page.items
                if closed_since is None or (time_of(item, "close_time") or 0) >= closed_since
            ]
            if items:
                tickers.extend(await self._keeper.list_markets(items, page.requested_at))

        await self._take_pages(pages, take)
        self.markets_listed += len(tickers)
        return tickers

    async def _take_pages(
        self, pages: AsyncIterator[Page[Json]], take: Callable[[Page[Json]], Awaitable[None]]
    ) -> None:
        """Take a listing page by page, each while the next one is asked for."""
        page = await anext(pages, None)
        while page is not None:
            self.progress.count(len(page.items), self._clock.now())
            # Both are waited for before an error of one is raised: nothing goes on behind our back.
            following, taken = await asyncio.gather(
                anext(pages, None), take(page), return_exceptions=True
            )
            for outcome in (taken, following):
                if isinstance(outcome, BaseException):
                    raise outcome
            page = following if isinstance(following, Page) else None

    async def _remember(self, full_at: int | None, updated_from: int) -> None:
        self.full_at, self.updated_from = full_at, updated_from
        self._keeper.is_first_listing = False
        state = {
            "full_at": full_at,
            "updated_from": updated_from,
            "fingerprint": self._fingerprint,
        }
        async with lend(self._pool) as conn:
            await set_state(conn, STATE_KEY, json.dumps(state), self._lease)

    @property
    def _mve_filter(self) -> str:
        return "" if self._combos else "exclude"
