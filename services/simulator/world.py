"""Names things: events, markets and trades of the made-up world, in the exchange's own manner of tickers.

A name is a function of a number, and the number can be read off the name again: so a market that nobody has looked at
needs no memory.
"""

import datetime as dt
import functools
import hashlib
import uuid

from libs.marketdata.units import DAY, SECOND
from services.simulator.instruments import COMBO_SERIES, SERIES, Event, Instrument, Series

MARKETS_PER_EVENT = 6
FAR = 30 * DAY
"""From its opening to the close of a market that closes at no particular time."""

_IDS = 1 << 128
_SPREAD = 7_919
"""Neighbouring numbers get letters that do not look alike."""
_HOUR = 3_600 * SECOND
_STAMP_LENGTH = len("26NOV1811")
_WITH_STRIKES = frozenset(("Crypto", "Financials", "Climate and Weather"))


def stable_id(*parts: object) -> str:
    """Return a UUID-shaped id that is a function of its parts."""
    text = ":".join(str(part) for part in parts)
    return str(uuid.UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest()))


class Ids:
    """UUID-shaped ids of the numbers of one kind of thing; no two numbers share one.

    Args:
        parts: what the ids are derived from, so that two runs never share one by accident.
    """

    __slots__ = ("_factor", "_inverse", "_offset")

    def __init__(self, *parts: object) -> None:
        text = ":".join(str(part) for part in parts)
        digest = hashlib.blake2b(text.encode(), digest_size=32).digest()
        self._offset = int.from_bytes(digest[:16], "big")
        self._factor = int.from_bytes(digest[16:], "big") | 1
        self._inverse = pow(self._factor, -1, _IDS)

    def of(self, number: int) -> str:
        digits = f"{(self._offset + number * self._factor) % _IDS:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def number_of(self, text: str) -> int | None:
        """Return the number an id was made of (some huge one for an id of another making), None for no id."""
        try:
            value = int(text.replace("-", ""), 16)
        except ValueError:
            return None
        return (value - self._offset) * self._inverse % _IDS


def make_event(series: Series, number: int, at: int) -> Event:
    """Return the event of this number, made at a time in microseconds."""
    stamp, day = _stamp(at // _HOUR)
    name = stamp + _letters((number + 1) * _SPREAD)
    return Event(
        ticker=f"{series.ticker}-{name}",
        series=series,
        title=f"{series.title} {name}",
        sub_title=day,
        created_at=at,
        number=number,
    )


def make_instrument(
    event: Event,
    place: int,
    number: int,
    market_id: str,
    at: int,
    open_at: int,
    close_at: int | None,
) -> Instrument:
    """Return the market of this number, the `place`th of its event.

    Args:
        at: time of listing, microseconds. open_at, close_at: rounded up to whole seconds; None = in 30 days.
    """
    if event.series.category in _WITH_STRIKES:
        strike = _first_strike(event.number) + 600 * place
        suffix, sub_title = f"T{strike - 1}.99", f"${strike:,} or above"
    else:
        suffix = _letters((number + 1) * _SPREAD)
        sub_title = suffix.title()
    return Instrument(
        ticker=f"{event.ticker}-{suffix}",
        market_id=market_id,
        event=event,
        sub_title=sub_title,
        created_at=at,
        open_at=_whole_second(open_at),
        close_at=_whole_second(open_at + FAR if close_at is None else close_at),
    )


def event_number(ticker: str) -> int | None:
    """Read the number of an event off its ticker; None when it has none."""
    name = ticker.partition("-")[2]
    number, rest = divmod(_number_of(name[_STAMP_LENGTH:]), _SPREAD)
    return number - 1 if number > 0 and rest == 0 else None


def place_of(event: Event, suffix: str) -> int | None:
    """Read a market's place in its event off a ticker's last part that names a strike; None when it names none."""
    digits = suffix[1:].removesuffix(".99")
    if event.series.category not in _WITH_STRIKES or not digits.isdecimal():
        return None
    return (int(digits) + 1 - _first_strike(event.number)) // 600


class World:
    """Hands out new instruments, filling events of one series after the other.

    Args:
        markets, events: how many there are already; numbers go on from there.
        open_events: by series the event that is not full yet, and how many markets it has.
    """

    def __init__(
        self,
        market_ids: Ids,
        trade_ids: Ids,
        markets: int = 0,
        events: int = 0,
        open_events: dict[str, tuple[Event, int]] | None = None,
    ) -> None:
        self._market_ids = market_ids
        self._trade_ids = trade_ids
        self.markets = markets
        """How many there are: the number of the next one."""
        self._events = events
        self._open_events = dict(open_events or {})
        self._turn = markets
        self._trades = 0

    def trade_id(self) -> str:
        self._trades += 1
        return self._trade_ids.of(self._trades)

    def instrument(
        self, at: int, open_at: int, close_at: int | None = None
    ) -> tuple[Instrument, bool]:
        """List the next market; the flag says that its event is new too. Arguments as of make_instrument."""
        series = SERIES[self._turn % len(SERIES)]
        self._turn += 1
        event, count = self._open_events.get(series.ticker, (None, MARKETS_PER_EVENT))
        is_new = event is None or count >= MARKETS_PER_EVENT
        if event is None or is_new:
            event, count = self._event(series, at), 0
        self._open_events[series.ticker] = (event, count + 1)
        return self._instrument(event, count, at, open_at, close_at), is_new

    def combo(self, at: int, open_at: int, close_at: int | None = None) -> Instrument:
        """List a multivariate market in an event of its own."""
        return self._instrument(self._event(COMBO_SERIES, at), 0, at, open_at, close_at)

    def _event(self, series: Series, at: int) -> Event:
        self._events += 1
        return make_event(series, self._events - 1, at)

    def _instrument(
        self, event: Event, place: int, at: int, open_at: int, close_at: int | None
    ) -> Instrument:
        number = self.markets
        self.markets += 1
        market_id = self._market_ids.of(number)
        return make_instrument(event, place, number, market_id, at, open_at, close_at)


@functools.lru_cache(maxsize=64)
def _stamp(hour: int) -> tuple[str, str]:
    day = dt.datetime.fromtimestamp(hour * 3_600, dt.UTC)
    return f"{day:%y%b%d%H}".upper(), f"On {day:%b} {day.day}"


def _first_strike(number: int) -> int:
    return 50_000 + number % 50 * 100


def _whole_second(at: int) -> int:
    return -(-at // SECOND) * SECOND


def _letters(number: int) -> str:
    """Write a number as capital letters, at least three: what stands for a team or a venue."""
    text = ""
    while number or len(text) < 3:
        number, letter = divmod(number, 26)
        text = chr(65 + letter) + text
    return text


def _number_of(letters: str) -> int:
    """Return the number that _letters wrote so; 0 for what are no letters."""
    number = 0
    for letter in letters:
        digit = ord(letter) - 65
        if not 0 <= digit < 26:
            return 0
        number = number * 26 + digit
    return number


def market_number(suffix: str) -> int | None:
    """Read the number of a market off the last part of its ticker, where that is made of letters."""
    number, rest = divmod(_number_of(suffix), _SPREAD)
    return number - 1 if number > 0 and rest == 0 else None
