"""Series, events and markets as things that are listed: what does not change while they trade."""

from dataclasses import dataclass

from libs.marketdata.units import PRICE_ONE


@dataclass(frozen=True, slots=True)
class PriceRange:
    """Prices from start to end move in steps of `step`; hundred-thousandths of a dollar."""

    start: int
    end: int
    step: int


@dataclass(frozen=True, slots=True)
class PriceStructure:
    """A named set of price ranges. The ranges are the truth, the name is a label."""

    name: str
    ranges: tuple[PriceRange, ...]

    def holds(self, price: int) -> bool:
        """Say whether an order may stand at this price."""
        return 0 < price < PRICE_ONE and price % self.step_at(price) == 0

    def step_at(self, price: int) -> int:
        """Return the tick that is valid at this price."""
        for band in self.ranges:
            if price < band.end:
                return band.step
        return self.ranges[-1].step


LINEAR_CENT = PriceStructure("linear_cent", (PriceRange(0, PRICE_ONE, 1_000),))
DECI_CENT = PriceStructure("deci_cent", (PriceRange(0, PRICE_ONE, 100),))
TAPERED_DECI_CENT = PriceStructure(
    "tapered_deci_cent",
    (
        PriceRange(0, 10_000, 100),
        PriceRange(10_000, 90_000, 1_000),
        PriceRange(90_000, PRICE_ONE, 100),
    ),
)
CENTI_CENT = PriceStructure("center_centi_edge_centi_cent", (PriceRange(0, PRICE_ONE, 10),))


@dataclass(frozen=True, slots=True)
class Series:
    ticker: str
    title: str
    category: str
    structure: PriceStructure


@dataclass(frozen=True, slots=True)
class Event:
    """The exchange's grouping of markets; times in microseconds since 1970.

    Attributes:
        number: in the order events are made, from 0. fee: override of (type, multiplier), None when there is none.
        updated_at: when it was last changed, 0 for never.
    """

    ticker: str
    series: Series
    title: str
    sub_title: str
    created_at: int
    number: int = 0
    fee: tuple[str, float] | None = None
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class Instrument:
    """One market as listed; all times in microseconds since 1970, open_at and close_at whole seconds."""

    ticker: str
    market_id: str
    event: Event
    sub_title: str
    created_at: int
    open_at: int
    close_at: int

    @property
    def is_combo(self) -> bool:
        return is_combo(self.ticker)


def is_combo(ticker: str) -> bool:
    """Say whether a ticker belongs to a multivariate (combo) market, whose lifecycle has its own channel."""
    return ticker.startswith("KXMVE")


SERIES = (
    Series("KXMLBGAME", "Professional baseball game", "Sports", LINEAR_CENT),
    Series("KXBTCD", "Bitcoin price today", "Crypto", DECI_CENT),
    Series("KXATPMATCH", "ATP match", "Sports", LINEAR_CENT),
    Series("KXINXD", "S&P 500 daily close", "Financials", TAPERED_DECI_CENT),
    Series("KXHIGHNY", "Highest temperature in New York", "Climate and Weather", LINEAR_CENT),
    Series("KXETHMIN", "Ethereum this quarter of an hour", "Crypto", CENTI_CENT),
)
"""The series a made-up world consists of: every price structure, tickers with dots among them."""

COMBO_SERIES = Series("KXMVESPORTS", "Multi-leg sports parlay", "Sports", CENTI_CENT)

STRUCTURES = {
    structure.name: structure
    for structure in (LINEAR_CENT, DECI_CENT, TAPERED_DECI_CENT, CENTI_CENT)
}
