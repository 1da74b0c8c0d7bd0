"""Which markets are checked when."""

from hypothesis import given
from hypothesis import strategies as st

from services.poller.sample import DAY_S, next_slice, sample_size


@given(st.integers(0, 2_000_000), st.floats(1.0, 20_000.0), st.integers(1, 5_000))
def test_every_market_has_its_turn_within_a_day(markets: int, period_s: float, least: int) -> None:
    """The slices of a day's whole rounds together are as many as there are markets, and none is less than asked for."""
    size = sample_size(markets, least, period_s)
    assert size == markets or (size >= least and size * max(DAY_S // period_s, 1) >= markets)


def test_the_defaults_are_a_thousand_a_round() -> None:
    """With 15 minutes, 1,000 a round reach 87,000 markets; more markets, more of them."""
    assert sample_size(87_000, 1_000, 900.0) == 1_000
    assert sample_size(1_000_000, 1_000, 900.0) == 11_459
    assert sample_size(40, 1_000, 900.0) == 40


@given(
    st.sets(st.text("ABC", min_size=1, max_size=4)), st.text("ABC", max_size=4), st.integers(0, 50)
)
def test_slices_go_round(names: set[str], after: str, size: int) -> None:
    """Slice after slice, every ticker comes once before any comes again; a slice holds none twice."""
    tickers = sorted(names)
    found = next_slice(tickers, after, size)
    assert len(found) == len(set(found)) == min(size, len(tickers))
    if size and tickers:
        seen: list[str] = []
        while len(seen) < len(tickers):
            found = next_slice(tickers, after, size)
            seen += found
            after = found[-1]
        assert set(seen[: len(tickers)]) == names
