"""The catalogue's only writer: takes listings, lifecycle rows and the clock, and writes what they change.

Reading what is known, comparing and writing are one step at a time, under one lock. Version rows are committed before
the catalogue takes the new state: a crash between the two repeats a row (legal), and never loses one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from libs.exchange.rest_wire import Json
from libs.marketdata.rows import LifecycleRow
from libs.runtime.clock import Clock
from libs.store.catalogue import (
    CatalogueWrite,
    MarketState,
    lend,
    read_categories,
    read_events,
    read_markets,
    read_series,
    write_catalogue,
)
from libs.store.catalogue_views import (
    count_markets,
    read_event_series,
    read_strays,
    read_unfinished,
)
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
    place,
    retire,
)
from services.registry.counts import Counts
from services.registry.lifecycle import Heard, Ordering, hear
from services.registry.listing import ListedMarket, read_each, read_event, read_market
from services.registry.listing import read_series as read_series_object
from services.registry.looks import Looks
from services.registry.raised import Raised
from services.registry.schedule import Schedule
from services.registry.slots import slot_names
from services.registry.statuses import REMOVED, next_due

log = get_logger(__name__)
T = TypeVar("T")

LOOK_AFTER: Final = 500_000
"""Microseconds after a message until REST is asked; right after an announcement a market is often 404."""
STRAYS_AT_ONCE: Final = 5_000
"""Most markets that one transaction gives another slot because theirs is gone."""


class Keeper:
    """The registry's hand on the catalogue.

    due: markets by the moment the clock changes them. looks, event_looks: markets and events by the moment REST is asked
    about them. markets: how many there are, by status. missing: markets that REST was asked about in vain, and how often
    in a row; who is listed is forgotten here.
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
        self._raised = Raised(cache)
        self._unjudged: dict[str, set[str]] = {}
        """Markets of a series whose category, which the filter asks for, was not known."""
        self._one = asyncio.Lock()
        self.rules = replace(
            rules, categories=self._categories, series_by_event=self._series_by_event
        )
        self.due = Schedule()
        self.looks = Looks()
        self.event_looks = Looks()
        self.markets = Counts()
        self.missing: dict[str, int] = {}
        self.is_first_listing = False
        self.counts = {"versions": 0, "stale": 0, "late": 0, "invalid": 0, "heard": 0}

    async def load(self) -> None:
        """Read from the database what is kept in memory: categories, events' series, what the clock will change."""
        async with self._one, lend(self._pool) as conn:
            self.markets.set(await count_markets(conn))
            self._categories.update(await read_categories(conn))
            self._series_by_event.update(await read_event_series(conn))
            now = self._clock.now()
            for ticker, status, open_at, close_at in await read_unfinished(conn):
                self.due.put(ticker, next_due(status, open_at, close_at, now, self.rules.ahead))
                passed = close_at is not None and close_at <= now
                if passed or (open_at is not None and open_at <= now and status == "initialized"):
                    self.due.put(ticker, now)

    async def count(self) -> None:
        """Count the markets again, if it is not known how many there are."""
        if not self.markets.is_known:
            async with self._one, lend(self._pool) as conn:
                self.markets.set(await count_markets(conn))

    def place_anew(self) -> None:
        """Compute every slot again as markets are listed: their number has changed."""
        self.rules = replace(self.rules, keeps_slots=False)

    async def place_strays(self) -> None:
        """Give the wanted markets of slots that the configuration has no more one that it has, without asking the exchange."""
        names, found = slot_names(self.rules.slots), STRAYS_AT_ONCE
        while found == STRAYS_AT_ONCE:
            async with self._one:
                async with lend(self._pool) as conn:
                    known = await read_strays(conn, names, STRAYS_AT_ONCE)
                await self._apply(Changes(place(known.values(), self.rules)), known)
            found = len(known)
            if found:
                log.info("markets_placed_anew", markets=found)

    async def list_series(self, items: Sequence[Json]) -> None:
        """Take listed series objects."""
        listed = self._read(read_series_object, items)
        async with self._one:
            async with lend(self._pool) as conn:
                known = await read_series(conn, [item.ticker for item in listed])
            await self._apply(diff_objects(listed, known, self._clock.now()), {})
            self._categories.update({i.ticker: i.category for i in listed if i.category})
            for item in listed:
                for ticker in self._unjudged.pop(item.ticker, ()) if item.category else ():
                    self.looks.put_earlier(ticker, self._clock.now())

    async def list_events(self, items: Sequence[Json]) -> None:
        """Take listed event objects."""
        listed = self._read(read_event, items)
        async with self._one:
            async with lend(self._pool) as conn:
                known = await read_events(conn, [item.ticker for item in listed])
            await self._apply(diff_objects(listed, known, self._clock.now()), {})
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
            changes = diff_markets(
                listed,
                known,
                self.rules,
                now,
                is_first_listing=self.is_first_listing,
                raised=self._raised.unseen(tickers, asked_at),
                recent={t for t in tickers if self.looks.is_early(t, asked_at)},
            )
            await self._apply(changes, known)
            for ticker in tickers:
                self.missing.pop(ticker, None)
            for ticker in changes.early:
                self.looks.put_earlier(ticker, self._raised.sure_at(ticker))
            self._note_unjudged(listed)
        return tickers

    def _note_unjudged(self, listed: Iterable[ListedMarket]) -> None:
        """Note markets that the filter could not judge: they are looked at again once their series is known."""
        if self.rules.capture.needs_category:
            for market in listed:
                series = self.rules.series(market.event_ticker)
                if series not in self._categories:
                    self._unjudged.setdefault(series, set()).add(market.ticker)

    async def hear(self, rows: Sequence[LifecycleRow]) -> Heard:
        """Take lifecycle rows of the zone."""
        async with self._one:
            now = self._clock.now()
            fresh = self._ordering.fresh(rows)
            async with lend(self._pool) as conn:
                known = await read_markets(conn, list({row.ticker for row in fresh}))
            heard = hear(fresh, known, self.rules, now)
            new = tuple((state, "{}") for state in heard.states if state.ticker in heard.new)
            old = tuple(state for state in heard.states if state.ticker not in heard.new)
            await self._apply(Changes(CatalogueWrite(markets=new, states=old)), known)
            self._ordering.remember(fresh, now)
            self.counts["heard"] += len(fresh)
            self._raised.note(heard.raised, heard.lowered, now)
            for looks, tickers in ((self.looks, heard.look), (self.event_looks, heard.events)):
                for ticker in tickers:
                    looks.put_earlier(ticker, now + LOOK_AFTER)
                    looks.put_sure(ticker, now + self._cache)
            for ticker in heard.fetch:
                self.looks.put_earlier(ticker, now)
        return heard

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
                await self._apply(Changes(advance_by_clock(known.values(), self.rules, now)), known)
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
        """Stop wanting markets the exchange does not know any more, but those that were listed meanwhile."""
        async with self._one:
            gone = [ticker for ticker in tickers if ticker in self.missing]
            async with lend(self._pool) as conn:
                known = await read_markets(conn, gone)
            await self._apply(Changes(retire(known.values(), REMOVED)), known)
        log.info("markets_removed", markets=len(known))

    async def _apply(self, changes: Changes, known: Mapping[str, MarketState]) -> None:
        self.counts["stale"] += changes.stale
        if changes.is_empty:
            return
        rows: dict[str, Sequence[Any]] = {
            "market_versions": changes.versions,
            "gaps": changes.gaps,
        }
        if changes.versions or changes.gaps:
            await self._scribe.write(rows)
        async with self.markets.changing(known, changes.market_states), lend(self._pool) as conn:
            slots = await write_catalogue(conn, changes.write, self._lease)
        if slots:
            self._notifier.poke()
        self.counts["versions"] += len(changes.versions)
        self.counts["late"] += len(changes.gaps)
        now = self._clock.now()
        for state in changes.market_states:
            due = next_due(state.status, state.open_at, state.close_at, now, self.rules.ahead)
            self.due.put(state.ticker, due)

    def _read(self, reader: Callable[[Json, int], T], items: Sequence[Json]) -> list[T]:
        read, wrong = read_each(reader, items, self._clock.now())
        self.counts["invalid"] += len(wrong)
        for error in wrong:
            log.warning("listing_invalid", error=error)
        return read
