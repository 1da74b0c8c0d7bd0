"""From claims to lanes, holes, causes and shares."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.listening import covers, union
from libs.store.coverage_records import Cause, Claim
from services.coverage.heard import ChannelHeard, channel_heard

SPAN = (0, 100)


def _claim(gatherer: int, ticker: str | None, start: int, end: int) -> Claim:
    return Claim(gatherer, UUID(int=gatherer), "orderbook_delta", ticker, start, end)


def _cause(gatherer: int, ticker: str | None, start: int, end: int) -> Cause:
    return Cause(gatherer, "book-1", ticker, "disconnected", "", start, end, None)


def _heard(*claims: Claim, causes: tuple[Cause, ...] = ()) -> ChannelHeard:
    return channel_heard("orderbook_delta", claims, causes, (1, 2), SPAN)


def test_lanes_shares_and_holes_of_two_gatherers() -> None:
    """Production heard what anybody heard; shares are of each market's time between first and last claim."""
    heard = _heard(
        _claim(1, "A", -50, 40), _claim(2, "A", 50, 100), _claim(1, "A", 60, 80), _claim(2, "B", 20, 40)
    )  # fmt: skip
    assert (heard.first, heard.last) == (0, 100)
    assert [(gap.ticker, gap.from_ts, gap.to_ts) for gap in heard.unheard] == [("A", 40, 50)]
    one, two, production = heard.lanes
    assert (one.gatherer, one.subjects, one.share) == (1, 1, 60 / 120)
    assert (one.heard, one.partly) == ([(0, 20), (60, 80)], [(20, 40)])
    assert (two.subjects, two.share) == (2, 70 / 120)
    assert (production.gatherer, production.share) == (None, 110 / 120)
    assert (production.heard, production.partly) == ([(0, 40), (50, 100)], [])
    assert (one.missed, two.missed, production.missed) == (20 + 20 + 20, 50, 10)


def test_holes_come_longest_first_with_the_causes_that_touch_them() -> None:
    """Of the market itself and of its slot, each once; another market's are not named."""
    causes = (
        _cause(1, None, 30, 45), _cause(1, None, 30, 45), _cause(2, "A", 60, 70), _cause(2, "B", 40, 70),
        _cause(1, None, 90, 95),
    )  # fmt: skip
    heard = _heard(
        _claim(1, "A", 0, 40), _claim(1, "A", 45, 60), _claim(2, "A", 80, 100), causes=causes
    )
    assert [(gap.length, gap.causes) for gap in heard.unheard] == [
        (20, (causes[2],)),
        (5, (causes[0],)),
    ]


def test_a_market_given_up_by_plan_is_over() -> None:
    """What a zone that was away claims of it later is neither a gap before nor anybody's duty."""
    over = [_claim(n, "A", 0, 40)._replace(ended="deleted") for n in (1, 2)]
    away = _claim(3, "A", 60, 70)
    heard = channel_heard("orderbook_delta", [*over, away], [], (1, 2, 3), SPAN)
    assert heard.unheard == []
    assert [lane.share for lane in heard.lanes] == [1.0, 1.0, 0.0, 1.0]
    assert (heard.lanes[0].heard, heard.lanes[0].partly) == ([(0, 40)], [])


def test_a_market_that_is_taken_up_again_lives_again() -> None:
    """By one who gave it up: the pause is no gap, and who does not hear it from then on misses something."""
    claims = [
        _claim(1, "A", 0, 40)._replace(ended="deleted"), _claim(2, "A", 0, 30)._replace(ended="deleted"),
        _claim(1, "A", 60, 80), _claim(1, "A", 90, 100),
    ]  # fmt: skip
    heard = _heard(*claims)
    assert [(gap.from_ts, gap.to_ts) for gap in heard.unheard] == [(80, 90)]
    one, two, production = heard.lanes
    assert (one.share, two.share, production.share) == (70 / 80, 30 / 80, 70 / 80)


def test_an_unplanned_end_is_a_gap_whoever_comes_back() -> None:
    """A stream that broke off, or that nobody closed, leaves a hole until the next claim of anybody."""
    heard = _heard(_claim(1, "A", 0, 40)._replace(ended="seq"), _claim(2, "A", 60, 100))
    assert [(gap.from_ts, gap.to_ts) for gap in heard.unheard] == [(40, 60)]


def test_nobody_claims_anything() -> None:
    """Then there is no first claim, no share and no hole: nothing is said of the span."""
    heard = _heard()
    assert (heard.first, heard.unheard) == (None, [])
    assert [lane.share for lane in heard.lanes] == [None, None, None]


_claims = st.builds(
    lambda gatherer, ticker, start, length: _claim(gatherer, ticker, start, start + length),
    st.integers(1, 2), st.sampled_from(["A", "B"]), st.integers(0, 60), st.integers(1, 30),
)  # fmt: skip


@given(st.lists(_claims, min_size=1, max_size=12))
def test_every_moment_is_heard_partly_heard_or_not(claims: list[Claim]) -> None:
    """For any claims each lane says of each moment what the claims of every market say."""
    heard = _heard(*claims)
    extents = {
        t: (min(c.from_ts for c in claims if c.ticker == t), max(c.to_ts for c in claims if c.ticker == t))
        for t in {c.ticker for c in claims}
    }  # fmt: skip
    for lane in heard.lanes:
        for moment in range(100):
            wanted = [t for t, (start, end) in extents.items() if start <= moment < end]
            told = [
                t
                for t in wanted
                if covers(
                    union(
                        (c.from_ts, c.to_ts)
                        for c in claims
                        if c.ticker == t and lane.gatherer in {None, c.gatherer}
                    ),
                    moment,
                )
            ]
            assert covers(lane.heard, moment) == (bool(told) and len(told) == len(wanted))
            assert covers(lane.partly, moment) == (0 < len(told) < len(wanted))
