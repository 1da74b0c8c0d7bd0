"""Order flow of one market: what traders do to a book, in actions of one to several deltas of one millisecond.

The mix is what recordings show: placements and cancellations mostly, orders moved by a tick, several orders placed or
pulled by one command (identical deltas in one millisecond), orders that live for microseconds (+5 and -5), and takers
whose trade shares its millisecond with the delta of the level they hit.
"""

from libs.marketdata.units import PRICE_ONE
from services.simulator.chance import Chance
from services.simulator.changes import Delta, Trade
from services.simulator.traded import TradedMarket, order_size, quote
from services.simulator.world import World

LEVELS_MAX = 24
FAIR_MIN, COMBO_FAIR_MIN = 4_000, 500
"""How far a fair price stays away from nothing and from a dollar."""
_FLASH_SIZE = 500
_BLOCK_SIZE = 250_000


class OrderFlow:
    """Acts on markets; every draw comes from the given chance.

    Attributes:
        clock_error: what the exchange's clock is ahead of the true time, microseconds.
    """

    def __init__(self, chance: Chance, world: World) -> None:
        self._chance = chance
        self._world = world
        self.clock_error = 0

    def drift(self, market: TradedMarket) -> None:
        """Move the fair price by up to two ticks."""
        step = market.structure.step_at(market.fair)
        moved = market.fair + step * self._chance.between(-2, 2)
        low = COMBO_FAIR_MIN if market.instrument.is_combo else FAIR_MIN
        market.fair = min(max(moved, low), PRICE_ONE - low)

    def block(self, market: TradedMarket, at: int) -> Trade:
        """Let two traders meet outside the book: a trade without a delta."""
        at = max(at, market.changed_at)
        size = _BLOCK_SIZE + self._chance.below(_BLOCK_SIZE)
        self._touch(market, at)
        return self._trade(market, at, market.fair, size, self._chance.draw() < 0.5, is_block=True)

    def pull_off_grid(self, market: TradedMarket, at: int) -> list[Delta | Trade]:
        """Cancel the orders at prices that the market's structure does not have."""
        at = max(at, market.changed_at)
        gone = [
            (side, price, size)
            for side in (True, False)
            for price, size in market.book.ladder(side)
            if not market.structure.holds(price)
        ]
        return [self._delta(market, at, side, price, -size) for side, price, size in gone]

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
        self._touch(market, at)
        return Delta(market.stamp, market.instrument, side, price, size_delta, market.position)

    def _touch(self, market: TradedMarket, at: int) -> None:
        market.changed_at = at
        market.stamp = at + self.clock_error

    def _trade(
        self,
        market: TradedMarket,
        at: int,
        yes_price: int,
        size: int,
        taker_side: bool,
        is_block: bool = False,
    ) -> Trade:
        market.last_price = yes_price
        market.last_trade_size = size
        market.volume += size
        market.open_interest += size if self._chance.draw() < 0.6 else 0
        return Trade(
            at + self.clock_error,
            market.instrument,
            self._world.trade_id(),
            yes_price,
            size,
            taker_side,
            is_block,
        )

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
        delta = self._delta(market, at, side, price, -size)
        return [delta, self._trade(market, at, yes_price, size, not side)]

    def _size(self) -> int:
        return order_size(self._chance)

    def _quote(self, market: TradedMarket, side: bool) -> int:
        return quote(self._chance, market, side)
