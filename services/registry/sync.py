"""Listing the exchange by REST: the whole catalogue, what changed since, single markets by name.

Each call is one turn of a task and may be repeated from its beginning: what is already known writes nothing again.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import chain
from typing import Any, Final

from libs.exchange.rest import RestClient
from libs.exchange.rest_wire import Json, Page
from libs.marketdata.units import DAY, SECOND
from libs.runtime.clock import Clock
from libs.store.catalogue import get_state, lend, read_markets, set_state
from libs.store.catalogue_views import read_wanted
from libs.store.leases import Lease
from libs.store.pool import Pool
from libs.telemetry.logging import get_logger
from services.registry.keeper import Keeper
from services.registry.listing import time_of
from services.registry.settings import Settings

log = get_logger(__name__)

STATE_KEY: Final = "listing"
TICKERS_PER_LOOK: Final = 100
LOOK_CHARS_MAX: Final = 4_000
"""Longest list of tickers in one request's address, characters; servers refuse longer lines than 8 kB."""
MISSES_MAX: Final = 10
MISS_WAIT: Final = 250_000
"""First wait after a market was not found, microseconds; doubles to about two minutes in all."""

CLOSED_LATELY: Final = 2 * DAY
"""How far back a full listing takes closed markets, microseconds: what a registry that was away has missed."""


def chunks(tickers: Sequence[str]) -> Iterable[list[str]]:
    """Split tickers so that each list fits into one request."""
    chunk: list[str] = []
    chars = 0
    for ticker in tickers:
        if chunk and (len(chunk) == TICKERS_PER_LOOK or chars + len(ticker) > LOOK_CHARS_MAX):
            yield chunk
            chunk, chars = [], 0
        chunk.append(ticker)
        chars += len(ticker) + 3
    if chunk:
        yield chunk


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
        self._misses: dict[str, int] = {}
        self.full_at: int | None = None
        self.updated_from: int | None = None
        self.markets_listed = 0
        self.full_listings = 0
        self.incremental_listings = 0

    def facts(self) -> dict[str, Any]:
        """Say in /health what was listed."""
        return {
            "full_at": self.full_at,
            "updated_from": self.updated_from,
            "full": self.full_listings,
            "incremental": self.incremental_listings,
            "markets": self.markets_listed,
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
        """Ask for a full listing at the next turn."""
        self.full_at = None

    async def sync_once(self) -> None:
        """List everything when that is due, else what changed."""
        now = self._clock.now()
        if self.full_at is None or now - self.full_at >= self._own.full_sync_s * SECOND:
            await self.list_all()
        else:
            await self.list_changed()

    async def list_all(self) -> None:
        """List every series, every event and every market that trades or will, or closed lately; then ask about what is
        wanted and was not listed.
        """
        started = self._clock.now()
        await self._keeper.list_series((await self._rest.series()).items)
        for status in ("open", "unopened"):
            await self._take_events(self._rest.events(status=status))
        if self._combos:
            await self._take_events(self._rest.multivariate_events())
        seen: set[str] = set()
        for status in ("open", "unopened", "paused"):
            pages = self._rest.markets(status=status, mve_filter=self._mve_filter)
            seen.update(await self._take_markets(pages))
        closed = self._rest.markets(status="closed", mve_filter=self._mve_filter)
        seen.update(await self._take_markets(closed, closed_since=started - CLOSED_LATELY))
        async with lend(self._pool) as conn:
            wanted = await read_wanted(conn)
        unseen = [ticker for ticker in wanted if ticker not in seen]
        for ticker in unseen:
            self._keeper.looks.put_earlier(ticker, self._clock.now())
        self.full_listings += 1
        await self._remember(started, started)
        log.info("catalogue_listed", markets=len(seen), unlisted=len(unseen),
                 seconds=round((self._clock.now() - started) / SECOND, 2))  # fmt: skip

    async def list_changed(self) -> None:
        """List what the exchange changed since the last listing, with some overlap."""
        assert self.updated_from is not None
        started = self._clock.now()
        since = self.updated_from - int(self._own.overlap_s * SECOND)
        series = await self._rest.series(min_updated_ts=since)
        if series.items:
            await self._keeper.list_series(series.items)
        await self._take_events(self._rest.events(min_updated_ts=since))
        await self._take_markets(
            self._rest.markets(min_updated_ts=since, mve_filter=self._mve_filter)
        )
        self.incremental_listings += 1
        await self._remember(self.full_at, started)

    async def look_once(self) -> None:
        """Ask about the markets whose look is due."""
        now = self._clock.now()
        waiting = list(chunks(self._keeper.looks.take(now, 5 * TICKERS_PER_LOOK)))
        try:
            while waiting:
                found = await self._take_markets(self._rest.markets(tickers=waiting[0]))
                await self._follow_up(waiting[0], found)
                del waiting[0]
        except BaseException:
            for ticker in chain.from_iterable(waiting):
                self._keeper.looks.put_earlier(ticker, now)
            raise

    async def _follow_up(self, asked: Sequence[str], found: Iterable[str]) -> None:
        """Look again, for a bounded number of times, at what was not there or not yet true."""
        answered, now = set(found), self._clock.now()
        misses = {t: self._misses.get(t, 0) + 1 for t in asked if t not in answered}
        gone = [ticker for ticker, count in misses.items() if count >= MISSES_MAX]
        if gone:
            await self._keeper.retire(gone)
        async with lend(self._pool) as conn:
            states = await read_markets(conn, list(answered))
        # What may fail is done: from here on nothing is half remembered.
        for ticker in (*gone, *(ticker for ticker in asked if ticker in answered)):
            self._misses.pop(ticker, None)
        for ticker in misses.keys() - set(gone):
            self._misses[ticker] = misses[ticker]
            self._keeper.looks.put_earlier(ticker, now + MISS_WAIT * 2 ** (misses[ticker] - 1))
        for state in states.values():
            closed_by_clock = state.status == "closed" and state.wanted
            if closed_by_clock:
                self._keeper.looks.put_earlier(state.ticker, now + int(self._own.cache_s * SECOND))

    async def _take_events(self, pages: AsyncIterator[Page[Json]]) -> None:
        async for page in pages:
            if page.items:
                await self._keeper.list_events(page.items)

    async def _take_markets(
        self, pages: AsyncIterator[Page[Json]], closed_since: int | None = None
    ) -> list[str]:
        """Give pages of markets to the keeper, only those that closed since then (microseconds) if that is said."""
        tickers: list[str] = []
        async for page in pages:
            items = [
                item
                for item in page.items
                if closed_since is None or (time_of(item, "close_time") or 0) >= closed_since
            ]
            if items:
                tickers += await self._keeper.list_markets(items, page.requested_at)
        self.markets_listed += len(tickers)
        return tickers

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
