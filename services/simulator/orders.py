"""Order flow of one market: what traders do to a book, in actions of one to several deltas of one millisecond.

The mix is what recordings show: placements and cancellations mostly, orders moved by a tick, several orders placed or
pulled by one command (identical deltas in one millisecond), orders that live for microseconds (+5 and -5), and takers
whose trade shares its millisecond with the delta of the level they hit.
"""

from libs.marketdata.units import PRICE_ONE
from services.simulator.book import Book
from services.simulator.chance import Chance
from services.simulator.changes import Delta, TickerState, Trade
from services.simulator.instruments import Instrument
from services.simulator.world import World

LEVELS_MAX = 24
_WHOLE_SIZES = (100, 500, 1_000, 1_000, 2_500, 5_000, 10_000, 10_000, 25_000, 120_000)
_FLASH_SIZE = 500


class TradedMarket:
    """A market as the model trades it: its book, a fair price, and the sums a ticker speaks of."""

    __slots__ = (
        "book", "changed_at", "fair", "instrument", "is_paused", "is_trading", "last_price", "last_ticker",
        "last_trade_size", "open_interest", "position", "volume", "weight",
    )  # fmt: skip

    def __init__(self, instrument: Instrument, fair: int, weight: float) -> None:
        self.instrument = instrument
        self.fair = fair
        self.weight = weight
        self.book = Book()
        self.is_trading = False
        self.is_paused = False
        self.position = 0
        self.changed_at = instrument.created_at
        self.last_price = 0
        self.last_trade_size = 0
        self.volume = 0
        self.open_interest = 0
        self.last_ticker: TickerState | None = None

    def ticker_state(self) -> TickerState:
        """Say what a ticker message says now; an empty side shows 0 and 1 dollar with size 0."""
        yes, no = self.book.yes, self.book.no
        yes_bid = max(yes) if yes else 0
        no_bid = max(no) if no else 0
        return TickerState(
            price=self.last_price,
            yes_bid=yes_bid,
            yes_ask=PRICE_ONE - no_bid,
            yes_bid_size=yes.get(yes_bid, 0),
            yes_ask_size=no.get(no_bid, 0),
            last_trade_size=self.last_trade_size,
            volume=self.volume,
            open_interest=self.open_interest,
            dollar_volume=self.volume // 200,
            dollar_open_interest=self.open_interest // 200,
        )


class OrderFlow:
    """Acts on markets; every draw comes from the given chance."""

    def __init__(self, chance: Chance, world: World) -> None:
        self._chance = chance
        self._world = world

    def drift(self, market: TradedMarket) -> None:
        """Move the fair price by up to two ticks."""
        step = market.instrument.event.series.structure.step_at(market.fair)
        moved = market.fair + step * self._chance.between(-2, 2)
        market.fair = min(max(moved, 4_000), 96_000)

    def open(self, market: TradedMarket, levels: int) -> None:
        """Fill the book before anybody looks: no deltas are made."""
        for _ in range(levels):
            side = self._chance.draw() < 0.5
            price = self._quote(market, side)
            if price:
                market.book.apply(side, price, self._size())

    def act(self, market: TradedMarket, at: int, budget: int) -> list[Delta | Trade]:
        """Let one trader act at a time; at most `budget` deltas, at least one."""
        draw = self._chance.draw()
        side = self._chance.draw() < 0.5
        at = max(at, market.changed_at)
        if draw < 0.10:
            return self._take(market, at, side) or self._place(market, at, side)
        if draw < 0.40 or (draw < 0.60 and budget < 2):
            return self._cancel(market, at, side) or self._place(market, at, side)
        if draw < 0.46:
            return self._move(market, at, side)
        if draw < 0.54:
            return self._twins(market, at, side)
        if draw < 0.60:
            return self._flash(market, at, side)
        return self._place(market, at, side)

    def last(self, market: TradedMarket, at: int) -> list[Delta | Trade]:
        """Make the market's final change: a trade where there is anything to take."""
        at = max(at, market.changed_at)
        taken = self._take(market, at, True) or self._take(market, at, False)
        return taken or self._place(market, at, True)

    def _delta(
        self, market: TradedMarket, at: int, side: bool, price: int, size_delta: int
    ) -> Delta:
        size = market.book.apply(side, price, size_delta)
        assert size >= 0, "the model took more than there was"
        market.position += 1
        market.changed_at = at
        return Delta(at, market.instrument, side, price, size_delta, market.position)

    def _place(
        self, market: TradedMarket, at: int, side: bool, size: int = 0
    ) -> list[Delta | Trade]:
        levels = market.book.side(side)
        if len(levels) >= LEVELS_MAX:
            return self._cancel(market, at, side)
        price = self._quote(market, side)
        if not price:
            side = not side
            price = self._quote(market, side) or max(market.book.side(side))
        return [self._delta(market, at, side, price, size or self._size())]

    def _cancel(self, market: TradedMarket, at: int, side: bool) -> list[Delta | Trade]:
        levels = market.book.side(side)
        if not levels:
            return []
        price = self._chance.pick(list(levels))
        size = levels[price]
        if self._chance.draw() < 0.4:
            size = 1 + int(size * self._chance.draw() * 0.999)
        return [self._delta(market, at, side, price, -size)]

    def _move(self, market: TradedMarket, at: int, side: bool) -> list[Delta | Trade]:
        levels = market.book.side(side)
        if not levels:
            return self._place(market, at, side)
        price = self._chance.pick(list(levels))
        size = levels[price]
        pulled = self._delta(market, at, side, price, -size)
        return [pulled, *self._place(market, at, side, size)]

    def _twins(self, market: TradedMarket, at: int, side: bool) -> list[Delta | Trade]:
        """Two equal orders placed, or pulled, by one command: two equal deltas."""
        levels = market.book.side(side)
        if levels:
            price = self._chance.pick(list(levels))
            half = levels[price] // 2
            if half and self._chance.draw() < 0.5:
                return [self._delta(market, at, side, price, -half) for _ in range(2)]
        else:
            price = self._quote(market, side)
        if not price:
            return self._place(market, at, side)
        size = self._size()
        return [self._delta(market, at, side, price, size) for _ in range(2)]

    def _flash(self, market: TradedMarket, at: int, side: bool) -> list[Delta | Trade]:
        """An order that does not live a millisecond: +5 and -5 at one price."""
        price = self._quote(market, side)
        if not price:
            return self._place(market, at, side)
        return [self._delta(market, at, side, price, size) for size in (_FLASH_SIZE, -_FLASH_SIZE)]

    def _take(self, market: TradedMarket, at: int, side: bool) -> list[Delta | Trade]:
        """Hit the best bid of a side: its level shrinks, and a trade of the same millisecond says so."""
        levels = market.book.side(side)
        if not levels:
            return []
        price = max(levels)
        size = min(levels[price], self._size())
        yes_price = price if side else PRICE_ONE - price
        market.last_price = yes_price
        market.last_trade_size = size
        market.volume += size
        market.open_interest += size if self._chance.draw() < 0.6 else 0
        delta = self._delta(market, at, side, price, -size)
        trade_id = self._world.trade_id()
        return [delta, Trade(at, market.instrument, trade_id, yes_price, size, not side)]

    def _size(self) -> int:
        if self._chance.draw() < 0.3:
            return 1 + self._chance.below(50_000)
        return self._chance.pick(_WHOLE_SIZES)

    def _quote(self, market: TradedMarket, side: bool) -> int:
        """Find a price for a new bid that does not cross the other side; 0 when there is none."""
        structure = market.instrument.event.series.structure
        fair = market.fair if side else PRICE_ONE - market.fair
        step = structure.step_at(fair)
        price = fair - step * (1 + int(self._chance.exponential(4.0)))
        other = market.book.side(not side)
        if other:
            price = min(price, PRICE_ONE - max(other) - step)
        price = max(price, step)
        price -= price % structure.step_at(price)
        if other and price + max(other) >= PRICE_ONE:
            return 0
        return price
