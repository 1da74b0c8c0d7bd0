"""What the exchange publishes, one fact each, and the line each leaves in the market journal.

Prices are hundred-thousandths of a dollar in the bid's own leg, sizes hundredths of a contract, times microseconds
since 1970. `at` is when it happened, of deltas and trades by the clock of the matching engine, which a clock step sets
wrong; `exchange_ts` is that clock floored to the millisecond.
"""

from dataclasses import dataclass, field

import msgspec

from libs.marketdata.units import PRICE_ONE, SECOND, floor_ms, parse_price
from services.simulator.book import Ladder
from services.simulator.instruments import Instrument

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Created:
    """A market is listed. `is_initial`: it existed at the epoch, with this book, and nobody is told."""

    at: int
    instrument: Instrument
    is_initial: bool
    yes: Ladder = ()
    no: Ladder = ()

    def journal_line(self) -> str:
        instrument = self.instrument
        return journal_line(
            kind="created",
            at=self.at,
            ticker=instrument.ticker,
            event_ticker=instrument.event.ticker,
            series_ticker=instrument.event.series.ticker,
            initial=self.is_initial,
            open_at=instrument.open_at,
            close_at=instrument.close_at,
            yes=self.yes,
            no=self.no,
        )


@dataclass(slots=True)
class Delta:
    """A level changed by size_delta; `position` counts the market's deltas from 1."""

    at: int
    instrument: Instrument
    side: bool
    price: int
    size_delta: int
    position: int

    def journal_line(self) -> str:
        # Written by hand: this is the hot line, a thousand and more of them a second.
        return (
            f'{{"kind":"delta","at":{self.at},"exchange_ts":{self.at - self.at % 1000}'
            f',"ticker":"{self.instrument.ticker}","side":{"true" if self.side else "false"}'
            f',"price":{self.price},"size_delta":{self.size_delta},"position":{self.position}}}\n'
        )


@dataclass(frozen=True, slots=True)
class Trade:
    """Two orders met; taker_side is True when the taker bought yes. A block trade was agreed on outside the book."""

    at: int
    instrument: Instrument
    trade_id: str
    yes_price: int
    size: int
    taker_side: bool
    is_block: bool = False

    @property
    def no_price(self) -> int:
        return PRICE_ONE - self.yes_price

    def journal_line(self) -> str:
        return journal_line(
            kind="trade",
            at=self.at,
            exchange_ts=floor_ms(self.at),
            ticker=self.instrument.ticker,
            trade_id=self.trade_id,
            yes_price=self.yes_price,
            no_price=self.no_price,
            size=self.size,
            taker_side=self.taker_side,
            is_block=self.is_block,
        )


@dataclass(frozen=True, slots=True)
class TickerState:
    """What a ticker message says of a market; whole dollars in the two dollar_ fields."""

    price: int
    yes_bid: int
    yes_ask: int
    yes_bid_size: int
    yes_ask_size: int
    last_trade_size: int
    volume: int
    open_interest: int
    dollar_volume: int
    dollar_open_interest: int


@dataclass(frozen=True, slots=True)
class Ticker:
    """A conflated ticker: published at `at`, speaking of the market's last change at `changed_at` (the engine's clock)."""

    at: int
    changed_at: int
    instrument: Instrument
    state: TickerState

    def journal_line(self) -> str:
        state = self.state
        return journal_line(
            kind="ticker",
            at=self.at,
            exchange_ts=floor_ms(self.changed_at),
            ticker=self.instrument.ticker,
            **{name: getattr(state, name) for name in TickerState.__slots__},
        )


@dataclass(slots=True)
class Lifecycle:
    """A lifecycle message as it is sent (`body`), on `channel`; `ticker` is the event's for event messages."""

    at: int
    ticker: str
    channel: str
    message_type: str
    event_type: str
    body: dict[str, object]
    _text: str = field(default="", init=False, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The body as JSON, written once for the journal and everybody who listens."""
        if not self._text:
            self._text = _encode(self.body).decode()
        return self._text

    def journal_line(self) -> str:
        body = self.body
        value = body.get("settlement_value")
        head = journal_line(
            kind="lifecycle",
            at=self.at,
            ticker=self.ticker,
            channel=self.channel,
            message_type=self.message_type,
            event_type=self.event_type,
            open_at=_micros(body.get("open_ts")),
            close_at=_micros(body.get("close_ts")),
            determined_at=_micros(body.get("determination_ts")),
            settled_at=_micros(body.get("settled_ts")),
            settlement_value=parse_price(value) if isinstance(value, str) else None,
            result=body.get("result"),
        )
        return f'{head[:-2]},"body":{self.text}}}\n'


@dataclass(frozen=True, slots=True)
class Closed:
    """A market's close time passed: no message says so, no order comes any more."""

    at: int
    instrument: Instrument

    def journal_line(self) -> str:
        return journal_line(kind="closed", at=self.at, ticker=self.instrument.ticker)


@dataclass(frozen=True, slots=True)
class ClockStepped:
    """The engine's clock jumped by `by` microseconds: what deltas, trades and tickers say from now on is wrong by that."""

    at: int
    by: int

    def journal_line(self) -> str:
        return journal_line(kind="clock_stepped", at=self.at, by=self.by)


@dataclass(frozen=True, slots=True)
class Halted:
    """Trading stands still until `until`, as in a maintenance window."""

    at: int
    until: int

    def journal_line(self) -> str:
        return journal_line(kind="halted", at=self.at, until=self.until)


Change = Created | Delta | Trade | Ticker | Lifecycle | Closed | ClockStepped | Halted


def _micros(seconds: object) -> int | None:
    return seconds * SECOND if isinstance(seconds, int) else None


def journal_line(**fields: object) -> str:
    """Return a line of a journal: compact JSON and a newline."""
    return _encode(fields).decode() + "\n"
