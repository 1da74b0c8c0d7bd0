"""Query parameters as the exchange reads them: cursors that never fail, limits that do, and filters of markets."""

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, TypeVar
from urllib.parse import parse_qs

from libs.marketdata.units import SECOND
from services.simulator.answers import Answer, nested, validation
from services.simulator.instruments import is_combo
from services.simulator.listing import Listing

STATUS_FILTERS: Final = {
    "unopened": frozenset({"initialized"}),
    "open": frozenset({"active", "inactive"}),
    "paused": frozenset({"inactive"}),
    "closed": frozenset({"closed", "determined", "disputed", "amended"}),
    "settled": frozenset({"finalized"}),
}
"""Filter words, which are not the words of the answer (kalshi-api 1.7)."""
TIME_FILTERS: Final = {
    "created": frozenset({"", "unopened", "open"}),
    "close": frozenset({"", "closed"}),
    "settled": frozenset({"", "settled"}),
    "updated": frozenset({""}),
}
"""Pairs of bounds of GET /markets, each with the status filters it goes with; they exclude one another."""
LOOKS_PER_ROW: Final = 5
"""Rows a listing looks at for each one it may return. Filters work on what was looked at: where hardly anything fits,
pages are short or empty and still have a cursor (kalshi-api 1.5)."""
FIELDS_MAX: Final = 1_000

T = TypeVar("T")
Predicate = Callable[[Listing, int], bool]


class BadParameter(Exception):
    """A query parameter is refused; `answer` says how."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body)
        self.answer = answer


class Query:
    """The parameters of one request, each with all its values.

    Raises (constructor):
        BadParameter: there are more of them than any endpoint takes.
    """

    def __init__(self, text: str) -> None:
        try:
            self._values = parse_qs(text, max_num_fields=FIELDS_MAX)
        except ValueError as error:
            raise incompatible("too many parameters") from error

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> str:
        """Return the first value, "" when there is none."""
        return self._values.get(name, ("",))[0]

    def all(self, name: str) -> list[str]:
        """Return every value of a repeated parameter."""
        return self._values.get(name, [])

    def names(self, name: str) -> frozenset[str]:
        """Return a comma-separated list."""
        return frozenset(filter(None, self.get(name).split(",")))

    def flag(self, name: str) -> bool:
        return self.get(name) == "true"


def out_of_range(endpoint: str, name: str, tag: str) -> BadParameter:
    """Refuse with the third of the exchange's error shapes, a validation message alone."""
    field = "".join(part.title() for part in name.split("_"))
    return BadParameter(validation(endpoint, field, tag))


def incompatible(details: str) -> BadParameter:
    """Refuse filters that do not go together, or a word that is no filter."""
    return BadParameter(nested(400, "bad_request", "bad request", details))


def encode_cursor(position: int) -> str:
    """Make an opaque cursor; "" stands for the last page and is never made here."""
    return base64.urlsafe_b64encode(f"position={position}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> int | None:
    """Read a cursor; whatever is not one means the first page (None), as on the exchange."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        name, _, number = raw.decode().partition("=")
        position = int(number)
        return position if name == "position" and position >= 0 else None
    except (binascii.Error, ValueError):
        return None


def read_limit(
    query: Query, endpoint: str, default: int, maximum: int, field: str = "limit"
) -> int:
    """Read a count. Over the maximum is refused, not clamped.

    Raises:
        BadParameter: not a number, or out of range.
    """
    limit = read_integer(query, endpoint, field)
    if limit is None or (limit == 0 and default):
        return default
    if limit > maximum:
        raise out_of_range(endpoint, field, "lte")
    if limit < 0:
        raise out_of_range(endpoint, field, "gte")
    return limit


def read_integer(query: Query, endpoint: str, field: str) -> int | None:
    """Read an integer, None when absent; refuses what is no number."""
    text = query.get(field)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise out_of_range(endpoint, field, "number") from error


def read_bounds(query: Query, endpoint: str, name: str) -> tuple[int, int] | None:
    """Read min_NAME_ts and max_NAME_ts, whole seconds both included; returns microseconds, None without either."""
    low = read_integer(query, endpoint, f"min_{name}_ts" if name else "min_ts")
    high = read_integer(query, endpoint, f"max_{name}_ts" if name else "max_ts")
    if low is None and high is None:
        return None
    return (low or 0) * SECOND, (high + 1) * SECOND - 1 if high is not None else 1 << 62


def read_page(
    rows: Iterable[tuple[int, T]], takes: Callable[[T], bool], limit: int
) -> tuple[list[T], str]:
    """Take one page of what fits, and the cursor of the next.

    Args:
        rows: (cursor position, row), from where the page begins to the listing's end. limit: rows of a page, above 0.
    """
    page: list[T] = []
    for looked, (position, row) in enumerate(rows):
        if len(page) == limit or looked == limit * LOOKS_PER_ROW:
            return page, encode_cursor(position)
        if takes(row):
            page.append(row)
    return page, ""


def read_status(query: Query) -> frozenset[str] | None:
    """Read the status filter; None: any status.

    Raises:
        BadParameter: a word that is no filter, for example one of a market's own.
    """
    status = query.get("status")
    if status and status not in STATUS_FILTERS:
        raise incompatible("invalid status filter")
    return STATUS_FILTERS[status] if status else None


def market_filter(query: Query) -> Predicate:
    """Read the filters of GET /markets.

    Returns:
        The test of a market at a time, microseconds.

    Raises:
        BadParameter: an unknown status, a time that is no number, filters that exclude one another.
    """
    statuses = read_status(query)
    bounds = {
        name: found
        for name in TIME_FILTERS
        if (found := read_bounds(query, "GetMarkets", name)) is not None
    }
    _check_exclusive(query, frozenset(bounds))
    tests = [*_named(query), *_bounded(bounds)]
    if statuses is not None:
        tests.append(lambda listing, now: listing.status(now) in statuses)
    if len(tests) == 1:
        return tests[0]
    return lambda listing, now: all(test(listing, now) for test in tests)


def _check_exclusive(query: Query, times: frozenset[str]) -> None:
    combos = query.get("mve_filter")
    if combos not in ("", "only", "exclude"):
        raise out_of_range("GetMarkets", "mve_filter", "oneof")
    if len(times) > 1:
        raise incompatible("timestamp filters are mutually exclusive")
    for name in times:
        if query.get("status") not in TIME_FILTERS[name]:
            raise incompatible(f"{name} timestamp filters do not go with this status filter")
    if "updated" in times:
        is_alone = not any(name in query for name in ("event_ticker", "tickers"))
        if not is_alone or combos == "only" or ("series_ticker" in query and not combos):
            raise incompatible("min_updated_ts goes with no filter but mve_filter=exclude")


def _named(query: Query) -> Iterator[Predicate]:
    event, series, tickers = (
        query.get("event_ticker"),
        query.get("series_ticker"),
        query.names("tickers"),
    )
    combos = query.get("mve_filter")
    if event:
        yield lambda listing, _: listing.instrument.event.ticker == event
    if series:
        yield lambda listing, _: listing.instrument.event.series.ticker == series
    if tickers:
        yield lambda listing, _: listing.instrument.ticker in tickers
    if combos:
        wanted = combos == "only"
        yield lambda listing, _: is_combo(listing.instrument.ticker) == wanted


def _bounded(bounds: dict[str, tuple[int, int]]) -> Iterator[Predicate]:
    return (partial(_lies_within, _TIMES[name], *found) for name, found in bounds.items())


def _lies_within(
    time_of: Callable[[Listing], int], low: int, high: int, listing: Listing, _now: int
) -> bool:
    return low <= time_of(listing) <= high


def _settled_at(listing: Listing) -> int:
    return listing.settled_at if listing.settled_at is not None else -1


_TIMES: Final[dict[str, Callable[[Listing], int]]] = {
    "created": lambda listing: listing.instrument.created_at,
    "close": lambda listing: listing.close_at,
    "settled": _settled_at,
    "updated": lambda listing: listing.updated_at,
}
