"""The catalogue's only writer: takes listings, lifecycle rows and the clock, and writes what they change.

Reading what is known, comparing and writing are one step at a time, under one lock. Version rows are committed before
the catalogue takes the new state: a crash between the two repeats a row (legal), and never loses one.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from libs.exchange.rest_wire import Json
from libs.marketdata.rows import LifecycleRow
from libs.runtime.clock import Clock
from libs.store.catalogue import (
    CatalogueWrite,
    ObjectState,
    lend,
    read_categories,
    read_events,
    read_markets,
    read_series,
    write_catalogue,
)
from libs.store.catalogue_views import read_event_series, read_unfinished
from libs.store.leases import Lease
from libs.store.notify import Notifier
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from libs.telemetry.logging import get_logger
from services.registry.catalogue import (
    Changes,
    Rules,
    advance_by_clock,
    diff_markets,
    diff_objects,
    retire,
)
from services.registry.lifecycle import Heard, Ordering, hear
from services.registry.listing import (
    Listed,
    ListingInvalid,
    read_event,
    read_market,
)
from services.registry.listing import read_series as read_series_object
from services.registry.schedule import Schedule
from services.registry.statuses import REMOVED, next_due

log = get_logger(__name__)

NEW_LOOK_AFTER: Final = 500_000
"""Microseconds after an announcement until the market's body is asked for; right away it is often 404."""

RAISED_TIDY: Final = 1_000
"""From this many on, markets raised longer ago than matters are forgotten."""


class Keeper:
    """The registry's hand on the catalogue.

    due: markets by the moment the clock changes them. looks: markets by the moment REST is asked about them.
    """

    def __init__(
        self,
        pool: Pool,
        scribe: Scribe,
        notifier: Notifier,
        clock: Clock,
        rules: Rules,
        cache: int,
        lease: Lease,
    ) -> None:
        self._lease = lease
        self._pool = pool
        self._scribe = scribe
        self._notifier = notifier
        self._clock = clock
        self._cache = cache
        self._categories: dict[str, str] = {}
        self._series_by_event: dict[str, str] = {}
        self._ordering = Ordering()
        self._raised: dict[str, int] = {}
        self._one = asyncio.Lock()
        self.rules = replace(
            rules, categories=self._categories, series_by_event=self._series_by_event
        )
        self.due = Schedule()
        self.looks = Schedule()
        self.is_first_listing = False
        self.counts = {"versions": 0, "stale": 0, "late": 0, "invalid": 0, "heard": 0}

    async def load(self) -> None:
        """Read from the database what is kept in memory: categories, events' series, and what the clock will change."""
        async with self._one, lend(self._pool) as conn:
            self._categories.update(await read_categories(conn))
            self._series_by_event.update(await read_event_series(conn))
            now = self._clock.now()
            for ticker, status, open_at, close_at in await read_unfinished(conn):
                self.due.put(ticker, next_due(status, open_at, close_at, now, self.rules.ahead))
                passed = close_at is not None and close_at <= now
                if passed or (open_at is not None and open_at <= now and status == "initialized"):
                    self.due.put(ticker, now)

    def place_anew(self) -> None:
        """Compute every slot again as markets are listed: their number has changed."""
        self.rules = replace(self.rules, keeps_slots=False)

    async def list_series(self, items: Sequence[Json]) -> None:
        """Take listed series objects."""
        listed = self._read(read_series_object, items)
        async with self._one:
            async with lend(self._pool) as conn:
                known = await read_series(conn, [item.ticker for item in listed])
            await self._apply(diff_objects(listed, known, self._clock.now()))
            self._categories.update({i.ticker: i.category for i in listed if i.category})

    async def list_events(self, items: Sequence[Json]) -> None:
        """Take listed event objects."""
        listed: list[Listed] = self._read(read_event, items)
        async with self._one:
            async with lend(self._pool) as conn:
                known: dict[str, ObjectState] = await read_events(conn, [i.ticker for i in listed])
            await self._apply(diff_objects(listed, known, self._clock.now()))
            self._series_by_event.update({item.ticker: item.parent for item in listed})

    async def list_markets(
        self, items: Sequence[Json], requested_at: int | None = None
    ) -> list[str]:
        """Take listed market objects; return their tickers.

        requested_at: when the listing was asked for, microseconds; None: now.
        """
        listed = self._read(read_market, items)
        tickers = [market.ticker for market in listed]
        async with self._one:
            async with lend(self._pool) as conn:
                known = await read_markets(conn, tickers)
            now = self._clock.now()
            asked_at = now if requested_at is None else requested_at
            # What the exchange's cache may not have known when the listing was asked for.
            raised = {
                t for t in tickers if self._raised.get(t, -self._cache) > asked_at - self._cache
            }
            changes = diff_markets(
                listed,
                known,
                self.rules,
                now,
                is_first_listing=self.is_first_listing,
                raised=raised,
            )
            await self._apply(changes)
            for ticker in changes.early:
                self.looks.put_earlier(ticker, self._raised[ticker] + self._cache)
        return tickers

    async def hear(self, rows: Sequence[LifecycleRow]) -> Heard:
        """Take lifecycle rows of the zone."""
        async with self._one:
            now = self._clock.now()
            fresh = self._ordering.fresh(rows, now)
            async with lend(self._pool) as conn:
                known = await read_markets(conn, list({row.ticker for row in fresh}))
            heard = hear(fresh, known, self.rules, now)
            new = tuple((state, "{}") for state in heard.states if state.ticker in heard.new)
            old = tuple(state for state in heard.states if state.ticker not in heard.new)
            await self._apply(Changes(CatalogueWrite(markets=new, states=old)))
            self.counts["heard"] += len(fresh)
            self._remember_raised(heard, now)
        for ticker in heard.look:
            self.looks.put_earlier(ticker, now + self._cache)
        for ticker in heard.new:
            self.looks.put_earlier(ticker, now + NEW_LOOK_AFTER)
        for ticker in heard.fetch:
            self.looks.put_earlier(ticker, now)
        return heard

    def _remember_raised(self, heard: Heard, now: int) -> None:
        """Remember for as long as the exchange's cache reaches back which markets messages have made wanted."""
        self._raised |= dict.fromkeys(heard.raised, now)
        for ticker in heard.lowered:
            self._raised.pop(ticker, None)
        if len(self._raised) > RAISED_TIDY:
            # Twice: a listing may take as long to come as the cache holds it.
            oldest = now - 2 * self._cache
            self._raised = {t: at for t, at in self._raised.items() if at > oldest}

    async def advance(self, limit: int = 1000) -> int:
        """Open and close the markets whose time has come; return how many were looked at."""
        now = self._clock.now()
        tickers = self.due.take(now, limit)
        if not tickers:
            return 0
        try:
            async with self._one:
                async with lend(self._pool) as conn:
                    known = await read_markets(conn, tickers)
                await self._apply(Changes(advance_by_clock(known.values(), self.rules, now)))
        except BaseException:
            for ticker in tickers:
                self.due.put_earlier(ticker, now)
            raise
        for state in known.values():
            after = next_due(state.status, state.open_at, state.close_at, now, self.rules.ahead)
            self.due.put(state.ticker, after)
            self.looks.put_earlier(state.ticker, now + self._cache)
        return len(tickers)

    async def retire(self, tickers: Sequence[str]) -> None:
        """Stop wanting markets the exchange does not know any more."""
        async with self._one:
            async with lend(self._pool) as conn:
                known = await read_markets(conn, tickers)
            await self._apply(Changes(retire(known.values(), REMOVED)))
        log.info("markets_removed", markets=len(known))

    async def _apply(self, changes: Changes) -> None:
        self.counts["stale"] += changes.stale
        if changes.is_empty:
            return
        rows: dict[str, Sequence[Any]] = {
            "market_versions": changes.versions,
            "gaps": changes.gaps,
        }
        if changes.versions or changes.gaps:
            await self._scribe.write(rows)
        async with lend(self._pool) as conn:
            slots = await write_catalogue(conn, changes.write, self._lease)
        if slots:
            self._notifier.poke()
        self.counts["versions"] += len(changes.versions)
        self.counts["late"] += len(changes.gaps)
        now = self._clock.now()
        for state in changes.market_states:
            due = next_due(state.status, state.open_at, state.close_at, now, self.rules.ahead)
            self.due.put(state.ticker, due)

    def _read(self, reader: Callable[[Json, int], Any], items: Sequence[Json]) -> list[Any]:
        """Read the objects of a page; one that lacks its key costs only itself."""
        now, read = self._clock.now(), []
        for item in items:
            try:
                read.append(reader(item, now))
            except ListingInvalid as error:
                self.counts["invalid"] += 1
                log.warning("listing_invalid", error=str(error))
        return read
