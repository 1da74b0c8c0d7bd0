import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.flow.backoff import Backoff


def test_doubles_up_to_the_maximum() -> None:
    """The least jitter gives the shortest delay first, then doubles, then half the maximum; the most twice as much."""
    backoff = Backoff(1.0, 5.0, lambda: 0.0)
    assert [backoff.next_delay() for _ in range(5)] == [1.0, 2.0, 2.5, 2.5, 2.5]
    assert backoff.failures == 5
    backoff = Backoff(1.0, 5.0, lambda: 1 - 2**-53)
    assert [round(backoff.next_delay(), 9) for _ in range(4)] == [2.0, 4.0, 5.0, 5.0]


def test_reset_begins_again() -> None:
    """After a reset the shortest delay comes again."""
    backoff = Backoff(1.0, 8.0, lambda: 0.0)
    backoff.next_delay()
    backoff.next_delay()
    backoff.reset()
    assert (backoff.failures, backoff.next_delay()) == (0, 1.0)


def test_only_a_stable_success_resets() -> None:
    """What breaks at once does not count as a success; what lasts as long as the next bound does."""
    backoff = Backoff(1.0, 8.0, lambda: 0.0)
    backoff.next_delay()
    backoff.next_delay()
    assert not backoff.reset_if_stable(7.9)
    assert backoff.failures == 2
    assert backoff.reset_if_stable(8.0)
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
def test_delays_stay_within_the_limits_and_double_on_average(
    low: float, factor: float, seed: int, failures: int
) -> None:
    """Whatever the chance, a delay is never below the shortest, above the longest, nor outside its own half bound."""
    high = low * factor
    backoff = Backoff(low, high, random.Random(seed).random)
    for number in range(1, failures + 1):
        bound = min(low * 2**number, high)
        delay = backoff.next_delay()
        assert max(low, bound / 2) <= delay <= max(low, bound)


def test_slots_that_fail_together_do_not_come_back_together() -> None:
    """A hundred that share one generator spread over the whole of each bound, at the longest one too."""
    chance = random.Random(7)
    backoffs = [Backoff(1.0, 300.0, chance.random) for _ in range(100)]
    for number in range(12):
        delays = sorted(backoff.next_delay() for backoff in backoffs)
        bound = min(2.0 ** (number + 1), 300.0)
        assert len(set(delays)) == 100
        assert delays[0] < 0.55 * bound
        assert delays[-1] > 0.95 * bound


def test_a_failure_may_bound_its_own_delay_and_the_next() -> None:
    """After many short ones the next long one begins where they were."""
    backoff = Backoff(1.0, 64.0, lambda: 1 - 2**-53)
    assert [round(backoff.next_delay(5.0), 9) for _ in range(4)] == [2.0, 4.0, 5.0, 5.0]
    assert [round(backoff.next_delay(), 9) for _ in range(4)] == [10.0, 20.0, 40.0, 64.0]
    assert round(backoff.next_delay(5.0), 9) == 5.0
