"""Shares: a cut leaves nothing out, gives nothing twice, and says the same everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from services.connector.shares import WHOLE, Share

TICKERS = st.frozensets(st.text("ABCDEF-0123456789", min_size=1, max_size=12), max_size=200)


def parts(tickers: frozenset[str], count: int) -> list[Share]:
    """The largest part is cut until there are so many, as a slot does it when its largest one fails."""
    found = [WHOLE]
    while len(found) < count:
        largest = max(found, key=lambda share: len(share.of(tickers)))
        halves = largest.halves(tickers)
        if halves is None:
            break
        found.remove(largest)
        found += halves
    return found


@given(TICKERS, TICKERS, st.integers(1, 8))
def test_every_market_has_one_part_also_those_that_come_later(
    tickers: frozenset[str], later: frozenset[str], count: int
) -> None:
    """What is wanted is shared out exactly."""
    shares = parts(tickers, count)
    for ticker in tickers | later:
        assert sum(share.holds(ticker) for share in shares) == 1
    assert frozenset().union(*(share.of(tickers) for share in shares)) == tickers


@given(TICKERS)
def test_halves_are_halves(tickers: frozenset[str]) -> None:
    """To one market; two or more are always cut, one or none never."""
    halves = WHOLE.halves(tickers)
    if len(tickers) < 2:
        assert halves is None
    else:
        assert halves is not None
        lower, upper = (len(share.of(tickers)) for share in halves)
        assert 0 <= upper - lower <= 1
        assert lower + upper == len(tickers)


def test_the_same_markets_are_cut_the_same_way_in_every_process() -> None:
    """Places are no hashes of this process: three names, and on which side of the cut each lies."""
    halves = WHOLE.halves(["KXA-1", "KXA-2", "KXA-3"])
    assert halves is not None
    assert {t: halves[0].holds(t) for t in ("KXA-1", "KXA-2", "KXA-3")} == {
        "KXA-1": False, "KXA-2": False, "KXA-3": True,
    }  # fmt: skip
