"""Planning a round of snapshots."""

from hypothesis import given
from hypothesis import strategies as st

from services.poller.plan import PARAMETER_CHARS, URL_CHARS_MAX, choose, plan_round


def test_requests_are_spread_evenly_over_the_period() -> None:
    """250 markets are three requests, a third of the period apart, the first at once."""
    requests = plan_round([f"T{n}" for n in range(250)], 900.0)
    assert [len(request.tickers) for request in requests] == [100, 100, 50]
    assert [request.after_s for request in requests] == [0.0, 300.0, 600.0]


def test_no_market_is_no_request() -> None:
    """An empty catalogue asks nothing."""
    assert plan_round([], 900.0) == []


@given(st.lists(st.text("ABC-.", min_size=1, max_size=200), unique=True, max_size=400))
def test_every_market_is_asked_once_in_addresses_that_fit(tickers: list[str]) -> None:
    """Whatever the tickers' lengths: each is in exactly one request, none too long, at most 100 in each."""
    requests = plan_round(tickers, 10.0)
    assert [t for request in requests for t in request.tickers] == tickers
    for request in requests:
        assert len(request.tickers) <= 100
        assert sum(len(t) + PARAMETER_CHARS for t in request.tickers) <= URL_CHARS_MAX
        assert 0.0 <= request.after_s < 10.0


def test_the_busiest_come_first_and_the_limit_cuts_the_rest() -> None:
    """Busy markets that are not open any more are left out; each market comes once."""
    assert choose(["A", "B", "C", "D"], ["C", "X", "B", "C"], 0) == ["C", "B", "A", "D"]
    assert choose(["A", "B", "C", "D"], ["C"], 2) == ["C", "A"]
