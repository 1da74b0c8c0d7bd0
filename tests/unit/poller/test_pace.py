"""How refusals change the rate."""

from hypothesis import given
from hypothesis import strategies as st

from services.poller.pace import HALVE_EVERY_S, LEAST, RAISE_EVERY_S, Pace


def test_a_refusal_halves_and_quiet_gives_back() -> None:
    """Refusals of one moment count once; after a quiet while the rate grows back to what is allowed, no further."""
    pace = Pace(10.0)
    assert pace.adjust(0.0, 0) == 10.0
    assert pace.adjust(1.0, 3) == 5.0
    assert pace.adjust(2.0, 4) == 5.0
    assert pace.adjust(1.0 + HALVE_EVERY_S, 9) == 2.5
    assert (pace.slowed, pace.is_full) == (2, False)
    now = 1.0 + HALVE_EVERY_S
    assert pace.adjust(now + 1, 9) == 2.5
    assert pace.adjust(now + RAISE_EVERY_S, 9) == 3.0
    for _ in range(40):
        now += RAISE_EVERY_S
        pace.adjust(now, 9)
    assert pace.is_full and pace.rate == 10.0


def test_another_budget_is_taken_over() -> None:
    """When the account's limits change, the rate is theirs."""
    pace = Pace(10.0)
    pace.allow(40.0)
    assert (pace.rate, pace.allowed) == (40.0, 40.0)


@given(st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 3)), max_size=60))
def test_the_rate_stays_between_its_bounds(steps: list[tuple[float, int]]) -> None:
    """Whatever comes: never above the share, never down to nothing."""
    pace, now, limited = Pace(8.0), 0.0, 0
    for wait, refused in steps:
        now, limited = now + wait, limited + refused
        assert LEAST * 8.0 <= pace.adjust(now, limited) <= 8.0
