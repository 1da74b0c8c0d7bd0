"""Query parameters as the exchange reads them: cursors that never fail, limits that do, and filters of markets."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from libs.marketdata.units import SECOND
from services.simulator.instruments import is_combo
from services.simulator.listing import Listing

STATUS_FILTERS = {
    "unopened": frozenset({"initialized"}),
    "open": frozenset({"active", "inactive"}),
    "paused": frozenset({"inactive"}),
    "closed": frozenset({"closed", "determined", "disputed", "amended"}),
    "settled": frozenset({"finalized"}),
}


class BadParameter(Exception):
    """A query parameter is refused; `body` is the 400 answer's."""

    def __init__(self, body: dict[str, object]) -> None:
        super().__init__(body)
        self.body = body


def out_of_range(endpoint: str, field: str, tag: str) -> BadParameter:
    """Return the third of the exchange's error shapes: a validation message alone."""
    return BadParameter(
        {
            "msg": f"Parameter validation failed for {endpoint}: Key: '{endpoint}Params.{field}' "
            f"Error:Field validation for '{field}' failed on the '{tag}' tag"
        }
    )


def encode_cursor(position: int) -> str:
    """Make an opaque cursor; "" stands for the last page and is never made here."""
    return base64.urlsafe_b64encode(f"position={position}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> int | None:
    """Read a cursor; whatever is not one means the first page (None), as on the exchange."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        name, _, number = raw.decode().partition("=")
        return int(number) if name == "position" else None
    except (binascii.Error, ValueError):
        return None


def read_limit(
    query: Mapping[str, str], endpoint: str, default: int, maximum: int, field: str = "limit"
) -> int:
    """Read a count. Over the maximum is refused, not clamped.

    Raises:
        BadParameter: not a number, or out of range.
    """
    limit = read_integer(query, endpoint, field)
    if limit is None or (limit == 0 and default):
        return default
    if limit > maximum:
        raise out_of_range(endpoint, field.title(), "lte")
    if limit < 0:
        raise out_of_range(endpoint, field.title(), "gte")
    return limit


def read_integer(query: Mapping[str, str], endpoint: str, field: str) -> int | None:
    """Read an integer, None when absent; refuses what is no number."""
    text = query.get(field, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise out_of_range(endpoint, field.title(), "number") from error


@dataclass(frozen=True, slots=True)
class MarketFilter:
    """Filters of GET /markets; times in microseconds, None = no bound."""

    event_ticker: str
    series_ticker: str
    tickers: frozenset[str]
    statuses: frozenset[str] | None
    bounds: tuple[tuple[str, int, int], ...]
    combos: str

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "MarketFilter":
        """Read the query.

        Raises:
            BadParameter: an unknown status, or a time that is no number.
        """
        status = query.get("status", "")
        if status and status not in STATUS_FILTERS:
            details = "invalid status filter"
            error = {"code": "bad_request", "message": "bad request", "details": details}
            raise BadParameter({"error": error})
        return cls(
            event_ticker=query.get("event_ticker", ""),
            series_ticker=query.get("series_ticker", ""),
            tickers=frozenset(filter(None, query.get("tickers", "").split(","))),
            statuses=STATUS_FILTERS[status] if status else None,
            bounds=tuple(_bounds(query)),
            combos=query.get("mve_filter", ""),
        )

    def takes(self, listing: Listing, now: int) -> bool:
        instrument = listing.instrument
        return (
            (not self.event_ticker or instrument.event.ticker == self.event_ticker)
            and (not self.series_ticker or instrument.event.series.ticker == self.series_ticker)
            and (not self.tickers or instrument.ticker in self.tickers)
            and (self.statuses is None or listing.status(now) in self.statuses)
            and not (self.combos == "exclude" and instrument.is_combo)
            and not (self.combos == "only" and not is_combo(instrument.ticker))
            and all(low <= _time_of(listing, name) <= high for name, low, high in self.bounds)
        )


def _bounds(query: Mapping[str, str]) -> list[tuple[str, int, int]]:
    found = []
    for name in ("created", "close", "settled", "updated"):
        low = read_integer(query, "GetMarkets", f"min_{name}_ts")
        high = read_integer(query, "GetMarkets", f"max_{name}_ts")
        if low is not None or high is not None:
            upper = (high + 1) * SECOND - 1 if high is not None else 1 << 62
            found.append((name, (low or 0) * SECOND, upper))
    return found


def _time_of(listing: Listing, name: str) -> int:
    """Return the time a bound speaks of; -1 when it has not come."""
    if name == "created":
        return listing.instrument.created_at
    if name == "close":
        return listing.close_at
    if name == "updated":
        return listing.updated_at
    return listing.settled_at if listing.settled_at is not None else -1
