"""Names things: events and markets of the made-up world, in the exchange's own manner of tickers."""

import datetime as dt
import hashlib
import uuid

from libs.marketdata.units import DAY, SECOND
from services.simulator.instruments import COMBO_SERIES, SERIES, Event, Instrument, Series

MARKETS_PER_EVENT = 6
_FAR = 30 * DAY


def stable_id(*parts: object) -> str:
    """Return a UUID-shaped id that is a function of its parts."""
    text = ":".join(str(part) for part in parts)
    return str(uuid.UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest()))


class World:
    """Hands out new instruments, filling events of one series after the other.

    Args:
        seed, epoch: what ids are derived from, so that two runs never share a trade or market id by accident.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._seed = seed
        self._epoch = epoch
        self._open_events: dict[str, tuple[Event, int]] = {}
        self._events = 0
        self._markets = 0
        self._trades = 0

    def trade_id(self) -> str:
        self._trades += 1
        return stable_id("trade", self._seed, self._epoch, self._trades)

    def instrument(
        self, at: int, open_at: int, close_at: int | None = None
    ) -> tuple[Instrument, bool]:
        """List the next market; the flag says that its event is new too.

        Args:
            at: time of listing, microseconds. open_at, close_at: rounded up to whole seconds; None = in 30 days.
        """
        series = SERIES[self._markets % len(SERIES)]
        event, count = self._open_events.get(series.ticker, (None, MARKETS_PER_EVENT))
        is_new = event is None or count >= MARKETS_PER_EVENT
        if event is None or is_new:
            event, count = self._event(series, at), 0
        self._open_events[series.ticker] = (event, count + 1)
        return self._instrument(event, count, at, open_at, close_at), is_new

    def combo(self, at: int) -> Instrument:
        """List a multivariate market in an event of its own."""
        return self._instrument(self._event(COMBO_SERIES, at), 0, at, at, None)

    def _event(self, series: Series, at: int) -> Event:
        self._events += 1
        day = dt.datetime.fromtimestamp(at // SECOND, dt.UTC)
        name = f"{day:%y%b%d%H}".upper() + _letters(self._events * 7_919)
        return Event(
            ticker=f"{series.ticker}-{name}",
            series=series,
            title=f"{series.title} {name}",
            sub_title=f"On {day:%b} {day.day}",
            created_at=at,
        )

    def _instrument(
        self, event: Event, place: int, at: int, open_at: int, close_at: int | None
    ) -> Instrument:
        self._markets += 1
        if event.series.category in ("Crypto", "Financials", "Climate and Weather"):
            strike = 50_000 + 600 * place + (self._events % 50) * 100
            suffix, sub_title = f"T{strike - 1}.99", f"${strike:,} or above"
        else:
            suffix = _letters(self._markets * 7_919)
            sub_title = suffix.title()
        ticker = f"{event.ticker}-{suffix}"
        return Instrument(
            ticker=ticker,
            market_id=stable_id("market", self._seed, self._epoch, ticker),
            event=event,
            sub_title=sub_title,
            created_at=at,
            open_at=_whole_second(open_at),
            close_at=_whole_second(open_at + _FAR if close_at is None else close_at),
        )


def _whole_second(at: int) -> int:
    return -(-at // SECOND) * SECOND


def _letters(number: int) -> str:
    """Write a number as capital letters, at least three: what stands for a team or a venue."""
    text = ""
    while number or len(text) < 3:
        number, letter = divmod(number, 26)
        text = chr(65 + letter) + text
    return text
