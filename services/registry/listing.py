"""REST objects of series, events and markets to what the catalogue keeps of them.

`body` is the object as canonical JSON (sorted keys, no blanks) without the fields that trading moves and without the
exchange's own update stamp, which is kept apart: a body changes exactly when somebody changed the market.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from libs.exchange.convert import canonical_json
from libs.marketdata.binary import content_hash
from libs.marketdata.capture import is_combo_ticker, series_of
from libs.marketdata.tables import MARKET_VERSIONS
from libs.marketdata.units import DAY, ValueDoesNotFit, parse_rfc3339

Json = Mapping[str, Any]
T = TypeVar("T")

_TRADING_PREFIXES = (
    "yes_bid", "yes_ask", "no_bid", "no_ask", "last_price", "previous_", "volume", "open_interest", "liquidity",
    "dollar_volume", "dollar_open_interest",
)  # fmt: skip
_STAMPS = frozenset({"updated_time", "last_updated_ts"})


class ListingInvalid(ValueError):
    """An object of a listing lacks what the catalogue is keyed by."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A series or event as listed; `parent` is an event's series, `category` a series' own. updated_at in microseconds."""

    level: str
    ticker: str
    parent: str
    category: str | None
    updated_at: int
    content_hash: int
    body: str


@dataclass(frozen=True, slots=True)
class ListedMarket:
    """A market as listed; times in microseconds. `status` is the exchange's word."""

    ticker: str
    event_ticker: str
    status: str
    is_combo: bool
    open_at: int | None
    close_at: int | None
    created_at: int | None
    updated_at: int
    content_hash: int
    body: str


def canonical(body: Json, *, without: frozenset[str] = frozenset()) -> str:
    """Write an object as canonical JSON without trading fields, update stamps and the keys named."""
    kept = {
        key: value
        for key, value in body.items()
        if key not in _STAMPS and key not in without and not key.startswith(_TRADING_PREFIXES)
    }
    return canonical_json(kept)


def time_of(body: Json, key: str) -> int | None:
    """Read a time of the object in microseconds; None when absent, empty or not a time."""
    value = body.get(key)
    if isinstance(value, str) and value:
        try:
            return parse_rfc3339(value)
        except ValueDoesNotFit:
            return None
    return None


def _text(body: Json, key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise ListingInvalid(f"an object of the listing has no {key}")
    return value


def _updated_at(body: Json, key: str, now: int) -> int:
    """Return when the exchange changed the object; without its word, our day, so that zones mostly agree."""
    stamp = time_of(body, key)
    return stamp if stamp is not None else now - now % DAY


def _hash(level: str, ticker: str, body: str) -> int:
    return content_hash(MARKET_VERSIONS, (level, ticker, body))


def read_series(body: Json, now: int) -> Listed:
    """Read a series object.

    Raises:
        ListingInvalid: it has no ticker.
    """
    ticker, text = _text(body, "ticker"), canonical(body)
    return Listed(
        level="series",
        ticker=ticker,
        parent="",
        category=body.get("category") or None,
        updated_at=_updated_at(body, "last_updated_ts", now),
        content_hash=_hash("series", ticker, text),
        body=text,
    )


def read_event(body: Json, now: int) -> Listed:
    """Read an event object; nested markets are left out.

    Raises:
        ListingInvalid: it has no ticker.
    """
    ticker = _text(body, "event_ticker")
    text = canonical(body, without=frozenset({"markets"}))
    return Listed(
        level="event",
        ticker=ticker,
        parent=body.get("series_ticker") or series_of(ticker),
        category=None,
        updated_at=_updated_at(body, "last_updated_ts", now),
        content_hash=_hash("event", ticker, text),
        body=text,
    )


def read_market(body: Json, now: int) -> ListedMarket:
    """Read a market object.

    Raises:
        ListingInvalid: it has no ticker, event or status.
    """
    ticker, text = _text(body, "ticker"), canonical(body)
    return ListedMarket(
        ticker=ticker,
        event_ticker=_text(body, "event_ticker"),
        status=_text(body, "status"),
        is_combo=bool(body.get("mve_collection_ticker")) or is_combo_ticker(ticker),
        open_at=time_of(body, "open_time"),
        close_at=time_of(body, "close_time"),
        created_at=time_of(body, "created_time"),
        updated_at=_updated_at(body, "updated_time", now),
        content_hash=_hash("market", ticker, text),
        body=text,
    )


def read_each(
    reader: Callable[[dict[str, Any], int], T], items: Iterable[dict[str, Any]], now: int
) -> tuple[list[T], list[str]]:
    """Read objects of a page; return them, and what is wrong with those that lack their key: they cost only themselves."""
    read: list[T] = []
    wrong: list[str] = []
    for item in items:
        try:
            read.append(reader(item, now))
        except ListingInvalid as error:
            wrong.append(str(error))
    return read, wrong
