"""Exact units: decimal and RFC 3339 strings to integers and back, never through a float.

price  hundred-thousandths of a dollar, 0..100000 ("0.5250" -> 52500)
size   hundredths of a contract, signed for a change of a level ("-54.00" -> -5400)
time   microseconds since the Unix epoch
"""

import datetime as dt
import re

PRICE_ONE = 100_000
"""One dollar, the largest price, in hundred-thousandths."""
PRICE_DECIMALS = 5
SIZE_DECIMALS = 2
MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
INT64_MAX = 2**63 - 1

_DECIMAL = re.compile(r"(-?)([0-9]{1,16})(?:\.([0-9]{1,12}))?", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class ValueDoesNotFit(ValueError):
    """A price, size or time of the exchange is malformed, out of range or finer than our unit."""


def parse_fixed(text: str, decimals: int) -> int:
    """Parse a decimal string to an integer of 10**-decimals units; finer digits must be zero.

    Raises:
        ValueDoesNotFit: not a plain decimal string, or not exact in this unit.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueDoesNotFit(f"not a decimal number: {text[:40]!r}")
    sign, whole, fraction = match.group(1), match.group(2), match.group(3) or ""
    if fraction[decimals:].strip("0"):
        raise ValueDoesNotFit(f"more than {decimals} decimals: {text!r}")
    value = int(whole + fraction[:decimals].ljust(decimals, "0"))
    return -value if sign else value


def parse_price(text: str) -> int:
    """Parse dollars to hundred-thousandths of a dollar within 0..100000.

    Raises:
        ValueDoesNotFit: malformed, finer than 5 decimals, or outside 0..1 dollar.
    """
    price = parse_fixed(text, PRICE_DECIMALS)
    if not 0 <= price <= PRICE_ONE:
        raise ValueDoesNotFit(f"price outside 0..1 dollar: {text!r}")
    return price


def parse_size(text: str) -> int:
    """Parse contracts (fractions, signed) to hundredths of a contract.

    Raises:
        ValueDoesNotFit: malformed, finer than 2 decimals, or beyond 64 bits.
    """
    size = parse_fixed(text, SIZE_DECIMALS)
    if abs(size) > INT64_MAX:
        raise ValueDoesNotFit(f"size beyond 64 bits: {text!r}")
    return size


def parse_rfc3339(text: str) -> int:
    """Parse an RFC 3339 time of 0 to 9 fractional digits to microseconds (nanoseconds are floored).

    Raises:
        ValueDoesNotFit: not an RFC 3339 time with an offset.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueDoesNotFit(f"not an RFC 3339 time: {text[:40]!r}")
    date, clock, fraction, zone = match.groups()
    try:
        moment = dt.datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError as error:
        raise ValueDoesNotFit(f"not an RFC 3339 time: {text!r}") from error
    since = moment - _EPOCH
    micros = int((fraction or "").ljust(6, "0")[:6])
    return (since.days * 86_400 + since.seconds) * SECOND + micros


def floor_ms(micros: int) -> int:
    """Floor microseconds to the whole millisecond they lie in."""
    return micros - micros % MILLISECOND


def ceil_ms(micros: int) -> int:
    """Raise microseconds to the next whole millisecond."""
    return -(-micros // MILLISECOND) * MILLISECOND


def format_price(price: int) -> str:
    """Format hundred-thousandths of a dollar as the exchange does: 4 decimals, 5 where needed."""
    text = f"{price // PRICE_ONE}.{price % PRICE_ONE:05d}"
    return text.removesuffix("0")


def format_size(size: int) -> str:
    """Format hundredths of a contract with exactly 2 decimals."""
    sign, size = ("-", -size) if size < 0 else ("", size)
    return f"{sign}{size // 100}.{size % 100:02d}"


def format_rfc3339(micros: int) -> str:
    """Format microseconds as RFC 3339 in UTC, trailing zeros of the fraction trimmed as the exchange does."""
    moment = _EPOCH + dt.timedelta(microseconds=micros - micros % SECOND)
    fraction = f"{micros % SECOND:06d}".rstrip("0")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z"
