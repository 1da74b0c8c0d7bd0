"""The markets that exist at the epoch, by number: a million of them cost nothing until somebody looks at one.

Number n is the (n // 6)th market of series n % 6, six markets to an event; the last ones are combos, each in an event of
its own. Everything about a market follows from seed, epoch and its number; its number can be read off ticker and id.
"""

import functools
from collections.abc import Mapping

from libs.marketdata.units import SECOND
from services.simulator.book import Ladder
from services.simulator.chance import Chance
from services.simulator.instruments import COMBO_SERIES, SERIES, Event, Instrument, Series
from services.simulator.traded import TradedMarket, fill_book
from services.simulator.world import (
    MARKETS_PER_EVENT,
    Ids,
    World,
    event_number,
    make_event,
    make_instrument,
    market_number,
    place_of,
)

OPENINGS_MAX = 100_000
"""Markets that are journalled with their books before anything happens; any other one right before it first changes."""
OPEN_DELAY = 2 * SECOND
_AGE = 3_600 * SECOND
_BLOCK = len(SERIES) * MARKETS_PER_EVENT
_EVENTS_KEPT = 1_024
_EMPTY_SHARE = 0.06
"""A few books stay empty or one-sided: snapshots then lack a key, or both."""
_EMPTY_COMBOS = 0.5
_LEVELS_MAX, _COMBO_LEVELS_MAX = 16, 4


class Catalogue:
    """What is listed at the epoch.

    Args:
        markets: how many, combos included. closing: close times in microseconds, by number, of those that close soon.
    """

    def __init__(
        self, seed: int, epoch: int, markets: int, combos: int, closing: Mapping[int, int]
    ) -> None:
        self._seed = seed
        self._epoch = epoch
        self._closing = closing
        self._market_ids = Ids("market", seed, epoch)
        self._trade_ids = Ids("trade", seed, epoch)
        self.markets = markets
        self._plain = markets - combos
        blocks, rest = divmod(self._plain, _BLOCK)
        self._plain_events = blocks * len(SERIES) + min(rest, len(SERIES))
        self.events = self._plain_events + combos
        self.event = functools.lru_cache(maxsize=_EVENTS_KEPT)(self._event)
        """Return the event of a number below `events`."""

    @property
    def series(self) -> tuple[Series, ...]:
        plain = SERIES[: min(self._plain, len(SERIES))]
        return (*plain, COMBO_SERIES) if self.markets > self._plain else plain

    def world(self) -> World:
        """Return the source of the markets to come: it fills the events that are not full."""
        open_events = {}
        for index, series in enumerate(SERIES):
            count = (self._plain - index + len(SERIES) - 1) // len(SERIES)
            if count > 0:
                group, place = divmod(count - 1, MARKETS_PER_EVENT)
                event = self.event(group * len(SERIES) + index)
                open_events[series.ticker] = (event, place + 1)
        return World(self._market_ids, self._trade_ids, self.markets, self.events, open_events)

    def instrument(self, number: int) -> Instrument:
        """Return the market of a number below `markets`."""
        event, place = self._whereabouts(number)
        created_at = self._created_at(number)
        close_at = self._closing.get(number)
        market_id = self._market_ids.of(number)
        open_at = created_at + OPEN_DELAY
        return make_instrument(event, place, number, market_id, created_at, open_at, close_at)

    def number_of(self, ticker: str) -> int | None:
        """Return the number of a market by its ticker; None when it is not one of these."""
        event_ticker, _, suffix = ticker.rpartition("-")
        found = self.event_number_of(event_ticker)
        if found is None:
            return None
        place = place_of(self.event(found), suffix)
        number = market_number(suffix) if place is None else self._number(found, place)
        if number is None or not 0 <= number < self.markets:
            return None
        return number if self.instrument(number).ticker == ticker else None

    def event_number_of(self, ticker: str) -> int | None:
        """Return the number of an event by its ticker; None when it is not one of these."""
        number = event_number(ticker)
        if number is None or number >= self.events or self.event(number).ticker != ticker:
            return None
        return number

    def number_of_id(self, market_id: str) -> int | None:
        """Return the number of a market by its id; None when it is not one of these."""
        number = self._market_ids.number_of(market_id)
        return number if number is not None and number < self.markets else None

    def numbers_of(self, event: int) -> range:
        """Return the numbers of an event's markets."""
        if event >= self._plain_events:
            number = self._plain + event - self._plain_events
            return range(number, number + 1)
        first = self._number(event, 0)
        return range(first, min(first + _BLOCK, self._plain), len(SERIES))

    def opening(self, number: int) -> TradedMarket:
        """Return a market with the book it has at the epoch; always the same."""
        instrument = self.instrument(number)
        chance = Chance((self._seed << 40) + number + 1)
        market = TradedMarket(instrument, fair_price(chance, instrument))
        is_combo = instrument.is_combo
        if chance.draw() >= (_EMPTY_COMBOS if is_combo else _EMPTY_SHARE):
            levels = chance.between(1, _COMBO_LEVELS_MAX if is_combo else _LEVELS_MAX)
            fill_book(chance, market, levels)
        market.changed_at = market.stamp = self._epoch
        return market

    def ladders(self, number: int) -> tuple[Ladder, Ladder]:
        """Return both sides of the book a market has at the epoch."""
        book = self.opening(number).book
        return book.ladder(True), book.ladder(False)

    def _event(self, number: int) -> Event:
        if number >= self._plain_events:
            first, series = self._plain + number - self._plain_events, COMBO_SERIES
        else:
            first, series = self._number(number, 0), SERIES[number % len(SERIES)]
        return make_event(series, number, self._created_at(first))

    def _whereabouts(self, number: int) -> tuple[Event, int]:
        if number >= self._plain:
            return self.event(self._plain_events + number - self._plain), 0
        block, rest = divmod(number, _BLOCK)
        place, index = divmod(rest, len(SERIES))
        return self.event(block * len(SERIES) + index), place

    def _number(self, event: int, place: int) -> int:
        block, index = divmod(event, len(SERIES))
        return block * _BLOCK + place * len(SERIES) + index

    def _created_at(self, number: int) -> int:
        return self._epoch - _AGE - number * SECOND


def fair_price(chance: Chance, instrument: Instrument) -> int:
    """Draw what a market is worth at first: combos are long shots."""
    return 100 * chance.between(5, 200) if instrument.is_combo else 1_000 * chance.between(8, 92)
