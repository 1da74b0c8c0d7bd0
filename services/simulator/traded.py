"""One market as the model trades it, and what a new order in it looks like."""

from libs.marketdata.units import PRICE_ONE
from services.simulator.book import Book
from services.simulator.chance import Chance
from services.simulator.changes import TickerState
from services.simulator.instruments import Instrument

_WHOLE_SIZES = (100, 500, 1_000, 1_000, 2_500, 5_000, 10_000, 10_000, 25_000, 120_000)


class TradedMarket:
    """A market as the model trades it: its book, a fair price, and the sums a ticker speaks of."""

    __slots__ = (
        "book", "changed_at", "close_at", "fair", "instrument", "is_paused", "is_trading", "last_price", "last_ticker",
        "last_trade_size", "open_interest", "position", "stamp", "structure", "volume",
    )  # fmt: skip

    def __init__(self, instrument: Instrument, fair: int) -> None:
        self.instrument = instrument
        self.structure = instrument.event.series.structure
        self.close_at = instrument.close_at
        self.fair = fair
        self.book = Book()
        self.is_trading = False
        self.is_paused = False
        self.position = 0
        self.changed_at = instrument.created_at
        self.stamp = instrument.created_at
        """changed_at by the exchange's own clock, which may be off."""
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


def order_size(chance: Chance) -> int:
    """Draw a size: mostly round, three in ten with fractions of a contract."""
    if chance.draw() < 0.3:
        return 1 + chance.below(50_000)
    return chance.pick(_WHOLE_SIZES)


def quote(chance: Chance, market: TradedMarket, side: bool) -> int:
    """Find a price for a new bid that does not cross the other side; 0 when there is none."""
    structure = market.structure
    fair = market.fair if side else PRICE_ONE - market.fair
    step = structure.step_at(fair)
    price = fair - step * (1 + int(chance.exponential(4.0)))
    other = market.book.side(not side)
    best = max(other) if other else 0
    if best:
        price = min(price, PRICE_ONE - best - step)
    price = max(price, step)
    price -= price % structure.step_at(price)
    # Below the tick of its own band a price may round down to nothing, or cross what stands there.
    return price if price and price + best < PRICE_ONE else 0


def fill_book(chance: Chance, market: TradedMarket, levels: int) -> None:
    """Place so many orders before anybody looks: no deltas are made."""
    for _ in range(levels):
        side = chance.draw() < 0.5
        price = quote(chance, market, side)
        if price:
            market.book.apply(side, price, order_size(chance))
