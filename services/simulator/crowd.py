"""Who trades: the markets orders can come to, drawn by weight, each made only when something first happens to it."""

import itertools
from array import array
from collections.abc import Callable, Iterator

from services.simulator.catalogue import OPENINGS_MAX, Catalogue
from services.simulator.chance import Chance
from services.simulator.changes import Created
from services.simulator.traded import TradedMarket

_DRAWS_MAX = 64


class Crowd:
    """The markets as the model trades them, by number.

    Args:
        chance: draws weights (one for each market of the catalogue, at once) and markets.
        tell: takes the listing of a market that was not journalled at first.
    """

    def __init__(
        self, chance: Chance, catalogue: Catalogue, tell: Callable[[Created], None]
    ) -> None:
        self._chance = chance
        self._catalogue = catalogue
        self._tell = tell
        self._made: dict[int, TradedMarket] = {}
        self._numbers = array("q", range(catalogue.markets))
        self._cumulative = array("d")
        total = 0.0
        for _ in range(catalogue.markets):
            total += self._weight()
            self._cumulative.append(total)
        self._closed: set[int] = set()

    def opening(self, number: int) -> Created:
        """Return the listing of a market of the catalogue, with its book."""
        instrument = self._catalogue.instrument(number)
        yes, no = self._catalogue.ladders(number)
        return Created(instrument.created_at, instrument, is_initial=True, yes=yes, no=no)

    def market(self, number: int) -> TradedMarket:
        """Return a market; one of the catalogue is made now if this is the first time."""
        market = self._made.get(number)
        if market is None:
            market = self._made[number] = self._catalogue.opening(number)
            market.is_trading = True
            if number >= OPENINGS_MAX:
                self._tell(self.opening(number))
        return market

    def expect(self, number: int, market: TradedMarket) -> None:
        """Take in a market that was created later and does not trade yet."""
        self._made[number] = market

    def admit(self, number: int, at: int) -> TradedMarket | None:
        """Begin to trade a market that was expected; None when it has closed by `at`."""
        market = self._made[number]
        if market.instrument.close_at <= at:
            return None
        market.is_trading = True
        total = self._cumulative[-1] if self._cumulative else 0.0
        self._numbers.append(number)
        self._cumulative.append(total + self._weight())
        return market

    def draw(self) -> TradedMarket | None:
        """Draw a trading market by weight; those that do not trade are drawn again, a bounded number of times."""
        if self._cumulative:
            for _ in range(_DRAWS_MAX):
                number = self._numbers[self._chance.weighted(self._cumulative)]
                if number not in self._closed and (market := self.market(number)).is_trading:
                    return market
        return None

    def close(self, number: int) -> TradedMarket:
        """End a market's trading for ever."""
        market = self.market(number)
        market.is_trading = market.is_paused = False
        self._closed.add(number)
        if len(self._closed) * 2 > len(self._numbers):
            self._sweep()
        return market

    def forget(self, number: int) -> None:
        """Drop what is known of a closed market: nothing happens to it any more."""
        self._made.pop(number, None)

    def trading(self, most: int) -> Iterator[TradedMarket]:
        """Yield those of the first `most` markets that trade."""
        for number in itertools.islice(self._numbers, most):
            if number not in self._closed and (market := self.market(number)).is_trading:
                yield market

    def _weight(self) -> float:
        # Few markets make most of the messages: weights fall like 1/rank over about three decades.
        return 1.0 / (0.02 + self._chance.draw())

    def _sweep(self) -> None:
        """Forget the places of closed markets, now that they are the half of what is drawn from."""
        kept = [place for place, number in enumerate(self._numbers) if number not in self._closed]
        before = [0.0, *self._cumulative]
        weights = (before[place + 1] - before[place] for place in kept)
        self._numbers = array("q", (self._numbers[place] for place in kept))
        self._cumulative = array("d", itertools.accumulate(weights))
        self._closed.clear()
