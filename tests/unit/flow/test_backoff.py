import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.flow.backoff import Backoff


def test_doubles_up_to_the_maximum() -> None:
    """Without jitter the delay is half the bound, which doubles and stops at the maximum."""
    backoff = Backoff(1.0, 5.0, lambda: 0.0)
    assert [backoff.next_delay() for _ in range(5)] == [0.5, 1.0, 2.0, 2.5, 2.5]
    assert backoff.failures == 5


def test_reset_begins_again() -> None:
    """After a reset the shortest delay comes again."""
    backoff = Backoff(1.0, 8.0, lambda: 0.0)
    backoff.next_delay()
    backoff.next_delay()
    backoff.reset()
    assert (backoff.failures, backoff.next_delay()) == (0, 0.5)


def test_only_a_stable_success_resets() -> None:
    """What breaks at once does not count as a success; what lasts as long as the next bound does."""
    backoff = Backoff(1.0, 8.0, lambda: 0.0)
    backoff.next_delay()
    backoff.next_delay()
    assert not backoff.reset_if_stable(3.9)
    assert backoff.failures == 2
    assert backoff.reset_if_stable(4.0)
    assert backoff.failures == 0


def test_a_stable_time_of_its_own_replaces_the_bound() -> None:
    """Neither shorter because the bound is short, nor longer because it has grown."""
    backoff = Backoff(1.0, 300.0, stable_s=60.0)
    assert not backoff.reset_if_stable(59.9)
    backoff.exhaust()
    assert backoff.next_delay() == 300.0
    assert backoff.reset_if_stable(60.0)
    assert backoff.next_delay() == 1.0


def test_without_jitter_the_whole_bound_is_waited() -> None:
    """For one that waits alone."""
    backoff = Backoff(0.2, 1.0)
    assert [backoff.next_delay() for _ in range(4)] == [0.2, 0.4, 0.8, 1.0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_refuses_senseless_bounds(low: float, high: float) -> None:
    """Bounds must be positive and in order."""
    with pytest.raises(ValueError, match="does not hold"):
        Backoff(low, high, lambda: 0.0)


@given(st.floats(0.01, 10), st.floats(1, 100), st.integers(0, 2**32), st.integers(1, 50))
def test_delay_stays_within_half_the_bound_and_the_bound(
    low: float, factor: float, seed: int, failures: int
) -> None:
    """Whatever the chance, a delay is never below half of its bound nor above the maximum."""
    backoff = Backoff(low, low * factor, random.Random(seed).random)
    for number in range(failures):
        bound = min(low * 2**number, low * factor)
        assert bound / 2 <= backoff.next_delay() <= bound
