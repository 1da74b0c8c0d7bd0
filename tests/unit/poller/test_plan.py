"""Planning a round of snapshots."""

from hypothesis import given
from hypothesis import strategies as st

from services.poller.plan import (
    PARAMETER_CHARS,
    URL_CHARS_MAX,
    attainable_s,
    choose,
    plan_round,
    split,
)


def test_requests_are_spread_evenly_over_the_period() -> None:
    """250 markets are three requests, a third of the period apart, the first at once."""
    requests = plan_round([f"T{n}" for n in range(250)], 900.0, 10.0)
    assert [len(request.tickers) for request in requests] == [100, 100, 50]
    assert [request.after_s for request in requests] == [0.0, 300.0, 600.0]


def test_a_round_that_the_budget_cannot_do_is_spread_over_the_time_it_takes() -> None:
    """100 requests at two a second take 50 s, though 10 s are wanted; they are still evenly spread."""
    tickers = [f"T{n}" for n in range(10_000)]
    assert attainable_s(100, 10.0, 2.0) == 50.0
    moments = [request.after_s for request in plan_round(tickers, 10.0, 2.0)]
    assert moments == [number * 0.5 for number in range(100)]
    assert attainable_s(100, 900.0, 2.0) == 900.0


def test_no_market_is_no_request() -> None:
    """An empty catalogue asks nothing."""
    assert plan_round([], 900.0, 10.0) == []


@given(st.lists(st.text("ABC-.", min_size=1, max_size=200), unique=True, max_size=400))
def test_every_market_is_asked_once_in_addresses_that_fit(tickers: list[str]) -> None:
    """Whatever the tickers' lengths: each is in exactly one request, none too long, at most 100 in each."""
    requests = split(tickers)
    assert [t for request in requests for t in request] == tickers
    for request in requests:
        assert len(request) <= 100
        assert sum(len(t) + PARAMETER_CHARS for t in request) <= URL_CHARS_MAX


def test_the_busiest_come_first_then_those_that_trade() -> None:
    """Busy markets that are not open any more are left out; each market comes once; the limit cuts the rest."""
    active, others = ["A", "B", "D"], ["C"]
    assert choose(active, others, ["C", "X", "B", "C"], 0) == ["C", "B", "A", "D"]
    assert choose(active, others, [], 0) == ["A", "B", "D", "C"]
    assert choose(active, others, ["D"], 2) == ["D", "A"]
