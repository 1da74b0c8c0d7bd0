"""Asking REST about single markets and events by name, when their look is due.

Each call is one turn of a task and may be repeated from its beginning: what is already known writes nothing again.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

from libs.exchange.rest import RestClient
from libs.runtime.clock import Clock
from libs.store.catalogue import lend, read_markets
from libs.store.pool import Pool
from services.registry.keeper import Keeper
from services.registry.looks import Looks

TICKERS_PER_LOOK: Final = 100
LOOK_CHARS_MAX: Final = 4_000
"""Longest list of tickers in one request's address, characters; servers refuse longer lines than 8 kB."""
CHUNKS_PER_TURN: Final = 5
MISSES_MAX: Final = 10
MISS_WAIT: Final = 250_000
"""First wait after a market was not found, microseconds; doubles to about two minutes in all."""


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


class Looker:
    """Brings the answers to the keeper.

    Args:
        cache: how old an answer may be, microseconds. is_paused: says whether the exchange is known to pause; what it
            does not show then is not gone.
    """

    def __init__(
        self,
        rest: RestClient,
        keeper: Keeper,
        pool: Pool,
        clock: Clock,
        cache: int,
        is_paused: Callable[[], bool],
    ) -> None:
        self._rest = rest
        self._keeper = keeper
        self._pool = pool
        self._clock = clock
        self._cache = cache
        self._is_paused = is_paused
        self.looked = 0

    def facts(self) -> dict[str, Any]:
        """Say in /health what waits, and how much was looked at."""
        return {
            "markets": len(self._keeper.looks),
            "events": len(self._keeper.event_looks),
            "missing": len(self._keeper.missing),
            "looked": self.looked,
        }

    async def markets_once(self) -> None:
        """Ask about the markets whose look is due."""
        looks = self._keeper.looks
        waiting = self._due(looks)
        try:
            while waiting:
                found: list[str] = []
                async for page in self._rest.markets(tickers=waiting[0]):
                    if page.items:
                        found += await self._keeper.list_markets(page.items, page.requested_at)
                await self._follow_up(waiting[0], found)
                self.looked += len(waiting[0])
                del waiting[0]
        except BaseException:
            self._put_back(looks, waiting)
            raise

    async def events_once(self) -> None:
        """Ask about the events whose look is due."""
        looks = self._keeper.event_looks
        waiting = self._due(looks)
        try:
            while waiting:
                async for page in self._rest.events(tickers=waiting[0]):
                    if page.items:
                        await self._keeper.list_events(page.items)
                self.looked += len(waiting[0])
                del waiting[0]
        except BaseException:
            self._put_back(looks, waiting)
            raise

    def _due(self, looks: Looks) -> list[list[str]]:
        return list(chunks(looks.take(self._clock.now(), CHUNKS_PER_TURN * TICKERS_PER_LOOK)))

    def _put_back(self, looks: Looks, waiting: Iterable[Sequence[str]]) -> None:
        now = self._clock.now()
        for ticker in chain.from_iterable(waiting):
            looks.put_earlier(ticker, now)

    async def _follow_up(self, asked: Sequence[str], found: Iterable[str]) -> None:
        """Look again, for a bounded number of times, at what was not there or not yet true."""
        answered, now, missing = set(found), self._clock.now(), self._keeper.missing
        misses = {t: missing.get(t, 0) + 1 for t in asked if t not in answered}
        gone = [ticker for ticker, count in misses.items() if count >= MISSES_MAX]
        if gone and self._is_paused():
            misses |= dict.fromkeys(gone, MISSES_MAX - 1)
            gone = []
        if gone:
            await self._keeper.retire(gone)
        async with lend(self._pool) as conn:
            states = await read_markets(conn, list(answered))
        # What may fail is done: from here on nothing is half remembered.
        for ticker in gone:
            missing.pop(ticker, None)
        for ticker in misses.keys() - set(gone):
            # One that was listed since then begins anew.
            count = misses[ticker] if ticker in missing else 1
            missing[ticker] = count
            self._keeper.looks.put_earlier(ticker, now + MISS_WAIT * 2 ** (count - 1))
        for state in states.values():
            closed_by_clock = state.status == "closed" and state.wanted
            if closed_by_clock:
                self._keeper.looks.put_earlier(state.ticker, now + self._cache)
