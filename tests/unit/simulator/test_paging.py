"""Query parameters: limits that refuse, cursors that never do, pages that may be empty, filters that exclude others."""

import json
from typing import Any

import pytest

from services.simulator.instruments import LINEAR_CENT, Event, Instrument, Series
from services.simulator.listing import Listing
from services.simulator.paging import (
    LOOKS_PER_ROW,
    BadParameter,
    Query,
    decode_cursor,
    encode_cursor,
    market_filter,
    read_limit,
    read_page,
)

SECOND = 1_000_000
T0 = 1_795_000_000 * SECOND
SERIES = Series("KXTEST", "A test", "Tests", LINEAR_CENT)


def listing(ticker: str = "KXTEST-E1-A", created_at: int = T0) -> Listing:
    event = Event(ticker.rpartition("-")[0], SERIES, "Event", "", created_at)
    close_at = created_at + 600 * SECOND
    return Listing(Instrument(ticker, "id", event, "A", created_at, created_at, close_at))


def refusal(query: str) -> tuple[int, Any]:
    with pytest.raises(BadParameter) as caught:
        market_filter(Query(query))
    return caught.value.answer.status, json.loads(caught.value.answer.body)


@pytest.mark.parametrize(("text", "tag"), [("1001", "lte"), ("-1", "gte"), ("x", "number")])
def test_a_limit_out_of_range_is_refused_not_clamped(text: str, tag: str) -> None:
    """kalshi-api 1.4 and 1.5: limit=1001 is 400 in the shape of a message alone."""
    with pytest.raises(BadParameter) as caught:
        read_limit(Query(f"limit={text}"), "GetMarkets", 100, 1000)
    assert json.loads(caught.value.answer.body) == {
        "msg": "Parameter validation failed for GetMarkets: Key: 'GetMarketsParams.Limit' "
        f"Error:Field validation for 'Limit' failed on the '{tag}' tag"
    }


@pytest.mark.parametrize(
    ("text", "limit"), [("", 100), ("limit=", 100), ("limit=0", 100), ("limit=1000", 1000)]
)
def test_limits_within_range(text: str, limit: int) -> None:
    """kalshi-api 1.5: default 100, at most 1000; 0 counts as not given."""
    assert read_limit(Query(text), "GetMarkets", 100, 1000) == limit


@pytest.mark.parametrize(
    "text",
    ["garbage-cursor-fixture", "!!", "cG9zaXRpb249eA", "ÄÖ", "", "%00", encode_cursor(-5)],
)
def test_garbage_is_the_first_page(text: str) -> None:
    """kalshi-api 1.4: a garbage cursor is no error."""
    assert decode_cursor(text) is None


def test_a_page_that_finds_nothing_has_a_cursor() -> None:
    """kalshi-api 1.5: a page may be empty while its cursor is not; the loop on the cursor finds everything."""
    rows = list(enumerate(range(1_000)))
    found: list[int] = []
    sizes: list[int] = []
    cursor = ""
    while True:
        start = decode_cursor(cursor) or 0
        page, cursor = read_page(rows[start:], lambda row: row >= 990, 3)
        found += page
        sizes.append(len(page))
        if not cursor:
            break
    assert found == list(range(990, 1_000))
    assert sizes[:-4] == [0] * (990 // (3 * LOOKS_PER_ROW))
    assert sizes[-1] == 1


def test_a_full_last_page_ends_the_listing() -> None:
    """kalshi-api 1.5: an empty string is the last page's cursor, also when the page is full."""
    rows = list(enumerate("abc"))
    assert read_page(rows, lambda _: True, 3) == (["a", "b", "c"], "")
    page, cursor = read_page(rows, lambda _: True, 2)
    assert (page, decode_cursor(cursor)) == (["a", "b"], 2)


@pytest.mark.parametrize("word", ["active", "finalized", "initialized", "OPEN"])
def test_a_status_of_a_market_is_no_filter(word: str) -> None:
    """kalshi-api 1.4: status=active or finalized is 400 with `invalid status filter`."""
    status, body = refusal(f"status={word}")
    assert status == 400
    assert body["error"]["details"] == "invalid status filter"


@pytest.mark.parametrize(
    "query",
    [
        "min_created_ts=1&max_close_ts=2", "min_updated_ts=1&min_created_ts=1",
        "min_created_ts=1&status=closed", "min_created_ts=1&status=settled",
        "max_close_ts=1&status=open", "min_close_ts=1&status=settled",
        "min_settled_ts=1&status=open", "max_settled_ts=1&status=closed",
        "min_updated_ts=1&status=open", "min_updated_ts=1&event_ticker=E",
        "min_updated_ts=1&tickers=A", "min_updated_ts=1&series_ticker=S",
        "min_updated_ts=1&mve_filter=only",
    ],
)  # fmt: skip
def test_time_filters_exclude_others(query: str) -> None:
    """kalshi-api 1.7: one pair of time filters, with the statuses it goes with."""
    status, body = refusal(query)
    assert status == 400
    assert set(body) == {"error"}


@pytest.mark.parametrize(
    "query",
    [
        "min_created_ts=1&max_created_ts=2&status=open", "min_created_ts=1&status=unopened",
        "min_close_ts=1", "max_close_ts=1&status=closed", "min_settled_ts=1&status=settled",
        "min_updated_ts=1", "min_updated_ts=1&mve_filter=exclude",
        "min_updated_ts=1&mve_filter=exclude&series_ticker=S",
    ],
)  # fmt: skip
def test_time_filters_that_are_allowed(query: str) -> None:
    """kalshi-api 1.7: the table of what goes with what."""
    market_filter(Query(query))


@pytest.mark.parametrize("name", ["created", "close", "settled", "updated"])
def test_bounds_are_whole_seconds_both_included(name: str) -> None:
    """kalshi-api 1.6: query parameters use Unix seconds; what happened within the second is within the bound."""
    market = listing(created_at=T0 + 999_999)
    market.close_at = market.updated_at = market.settled_at = T0 + 999_999
    second = T0 // SECOND
    assert market_filter(Query(f"min_{name}_ts={second}"))(market, T0)
    assert not market_filter(Query(f"min_{name}_ts={second + 1}"))(market, T0)
    if name != "updated":
        assert market_filter(Query(f"max_{name}_ts={second}"))(market, T0)
        assert not market_filter(Query(f"max_{name}_ts={second - 1}"))(market, T0)


def test_what_is_not_settled_has_no_settled_time() -> None:
    """A bound on a time that has not come excludes the market."""
    assert not market_filter(Query("min_settled_ts=0"))(listing(), T0)


def test_filters_of_names_and_combos() -> None:
    """kalshi-api 1.7: event, series, tickers and mve_filter; all that are given must fit."""
    plain, combo = listing(), listing("KXMVETEST-E-A")
    for query, fits in (
        ("event_ticker=KXTEST-E1", [True, False]),
        ("series_ticker=KXTEST", [True, True]),
        ("series_ticker=KXOTHER", [False, False]),
        ("tickers=KXTEST-E1-A,KXNOBODY", [True, False]),
        ("mve_filter=only", [False, True]),
        ("mve_filter=exclude", [True, False]),
        ("mve_filter=exclude&status=closed", [False, False]),
        ("", [True, True]),
    ):
        takes = market_filter(Query(query))
        assert [takes(plain, T0), takes(combo, T0)] == fits, query
    with pytest.raises(BadParameter, match="MveFilter"):
        market_filter(Query("mve_filter=none"))


@pytest.mark.parametrize(
    ("word", "now", "fits"),
    [
        ("open", T0, True), ("unopened", T0 - 1, True), ("open", T0 - 1, False),
        ("closed", T0 + 600 * SECOND, True), ("open", T0 + 600 * SECOND, False),
        ("settled", T0 + 600 * SECOND, False),
    ],
)  # fmt: skip
def test_the_status_is_that_of_the_moment(word: str, now: int, fits: bool) -> None:
    """kalshi-api 1.7: opening and closing are announced by nobody, the listing knows the time."""
    assert market_filter(Query(f"status={word}"))(listing(), now) is fits


def test_a_query_of_thousands_of_parameters_is_refused() -> None:
    """What no client sends is a 400, not a fault of ours."""
    with pytest.raises(BadParameter, match="too many parameters"):
        Query("&".join(f"tickers=T{number}" for number in range(1_001)))
