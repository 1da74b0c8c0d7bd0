"""Single values of the exchange's messages to exact integers; what does not fit names its field.

price  hundred-thousandths of a dollar; size  hundredths of a contract; time  microseconds since the Unix epoch
"""

import functools

from libs.exchange.wire import LooseTime
from libs.marketdata.units import (
    INT64_MAX,
    MILLISECOND,
    SECOND,
    ValueDoesNotFit,
    floor_ms,
    parse_price,
    parse_rfc3339,
    parse_size,
)

TICKER_CHARS_MAX = 200
TIME_MIN = 946_684_800 * SECOND
"""2000-01-01: the earliest time of a fact, microseconds."""
TIME_MAX = 4_102_444_800 * SECOND
"""2100-01-01, not included. A fact's time names its partition and moves what is known to be merged: a wild one, in another
unit perhaps, would stop both, so it costs its own message instead."""
_MS_MAX = INT64_MAX // MILLISECOND
_SECONDS_MAX = INT64_MAX // SECOND
IS_YES = {"yes": True, "no": False}
BOOK_SIDE_IS_YES = {"bid": True, "ask": False}

# A few thousand price and size texts make up nearly all of the traffic; a look-up costs a fifth of the parsing.
_price = functools.lru_cache(maxsize=16_384)(parse_price)
_size = functools.lru_cache(maxsize=65_536)(parse_size)


def price_of(field: str, text: str) -> int:
    """Parse the price in `field`, hundred-thousandths of a dollar.

    Raises:
        ValueDoesNotFit: names the field.
    """
    try:
        return _price(text)
    except ValueDoesNotFit as error:
        raise ValueDoesNotFit(f"{field}: {error}") from error


def size_of(field: str, text: str) -> int:
    """Parse the signed size in `field`, hundredths of a contract.

    Raises:
        ValueDoesNotFit: names the field.
    """
    try:
        return _size(text)
    except ValueDoesNotFit as error:
        raise ValueDoesNotFit(f"{field}: {error}") from error


def name_of(field: str, text: str) -> str:
    """Check a name the database must be able to hold: not empty, at most 200 characters, no NUL.

    Raises:
        ValueDoesNotFit: names the field.
    """
    if not text or len(text) > TICKER_CHARS_MAX or "\x00" in text:
        raise ValueDoesNotFit(f"{field}: not a name: {text[:40]!r}")
    return text


def sent_at_of(sending_ts_ms: int | None) -> int | None:
    """Return the envelope's sending time in microseconds, None when absent.

    Raises:
        ValueDoesNotFit: negative or beyond 64 bits; whether it can be true is judged by who knows our clock.
    """
    if sending_ts_ms is None:
        return None
    if not 0 < sending_ts_ms <= _MS_MAX:
        raise ValueDoesNotFit(f"sending_ts_ms: not a time: {sending_ts_ms}")
    return sending_ts_ms * MILLISECOND


def milliseconds(field: str, value: int) -> int:
    """Return a fact's time in milliseconds as microseconds; ValueDoesNotFit names the field."""
    time = value * MILLISECOND
    if not TIME_MIN <= time < TIME_MAX:
        raise ValueDoesNotFit(f"{field}: not a time: {value}")
    return time


def seconds(field: str, value: int | None) -> int | None:
    """Return a business time in seconds as microseconds: content, which may lie anywhere; ValueDoesNotFit names the field."""
    if value is None:
        return None
    if not 0 <= value <= _SECONDS_MAX:
        raise ValueDoesNotFit(f"{field}: not a time: {value}")
    return value * SECOND


def moment(ts_ms: int | None, field: str, loose: LooseTime) -> int:
    """Return exchange_ts: ts_ms, else the RFC 3339 text floored to the millisecond."""
    if ts_ms is not None:
        return milliseconds("ts_ms", ts_ms)
    if not isinstance(loose, str):
        raise ValueDoesNotFit(f"ts_ms: absent, and {field} is no RFC 3339 time")
    return rfc3339_of(field, loose)


def rfc3339_of(field: str, text: str) -> int:
    """Return an RFC 3339 time floored to the millisecond, in microseconds; ValueDoesNotFit names the field."""
    try:
        time = floor_ms(parse_rfc3339(text))
    except ValueDoesNotFit as error:
        raise ValueDoesNotFit(f"{field}: {error}") from error
    if not TIME_MIN <= time < TIME_MAX:
        raise ValueDoesNotFit(f"{field}: not a time: {text[:40]!r}")
    return time


def whole(field: str, value: int) -> int:
    """Check that a number fits 64 bits; ValueDoesNotFit names the field."""
    if not -INT64_MAX <= value <= INT64_MAX:
        raise ValueDoesNotFit(f"{field}: beyond 64 bits: {value}")
    return value


def amount_of(field: str, text: str) -> int:
    """Parse a size that cannot be negative; ValueDoesNotFit names the field."""
    size = size_of(field, text)
    if size < 0:
        raise ValueDoesNotFit(f"{field}: negative: {text!r}")
    return size


def taker_is_yes(outcome: str | None, old: str | None, book: str | None) -> bool:
    """Read the taker's side from the newest field that is there; the two older ones are deprecated."""
    for field, text, meaning in (
        ("taker_outcome_side", outcome, IS_YES),
        ("taker_side", old, IS_YES),
        ("taker_book_side", book, BOOK_SIDE_IS_YES),
    ):
        if text is not None:
            if text not in meaning:
                raise ValueDoesNotFit(f"{field}: {text[:40]!r}")
            return meaning[text]
    raise ValueDoesNotFit("taker_outcome_side: absent")
