import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.flow.token_bucket import TokenBucket


def test_capacity_is_free_then_the_rate_holds() -> None:
    """The first `capacity` reservations wait for nothing, the next ones for one more refill each."""
    bucket = TokenBucket(rate=10, capacity=2)
    waits = [bucket.reserve(100.0) for _ in range(5)]
    assert waits == pytest.approx([0, 0, 0.1, 0.2, 0.3])


def test_refills_up_to_its_capacity() -> None:
    """A long pause gives back the capacity and no more."""
    bucket = TokenBucket(rate=10, capacity=2)
    for _ in range(5):
        bucket.reserve(0.0)
    assert [bucket.reserve(1000.0) for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_cost_counts() -> None:
    """A dear request waits for all its tokens."""
    bucket = TokenBucket(rate=10, capacity=10)
    assert bucket.reserve(0.0, 15) == pytest.approx(0.5)


def test_time_that_goes_back_gives_nothing() -> None:
    """An earlier reading of the clock neither refills nor takes."""
    bucket = TokenBucket(rate=1, capacity=1)
    assert bucket.reserve(10.0) == 0
    assert bucket.reserve(5.0) == pytest.approx(1)
    assert bucket.reserve(10.0) == pytest.approx(2)


def test_hold_leaves_nothing_for_a_while() -> None:
    """After a refusal of the exchange everybody waits; a shorter hold does not shorten a longer wait."""
    bucket = TokenBucket(rate=10, capacity=10)
    bucket.hold(0.0, 2.0)
    assert bucket.reserve(0.0) == pytest.approx(2.1)
    bucket.hold(0.0, 1.0)
    assert bucket.reserve(0.0) == pytest.approx(2.2)


def test_set_rate_goes_on_with_the_new_rate() -> None:
    """Another rate counts from now on, and a smaller capacity cuts what was saved."""
    bucket = TokenBucket(rate=10, capacity=10)
    bucket.set_rate(0.0, rate=1, capacity=2)
    assert [bucket.reserve(0.0) for _ in range(3)] == pytest.approx([0, 0, 1])


def test_refuses_a_rate_or_capacity_of_nothing() -> None:
    """A bucket that never fills would wait for ever."""
    with pytest.raises(ValueError, match="above zero"):
        TokenBucket(0, 1)
    with pytest.raises(ValueError, match="above zero"):
        TokenBucket(1, 1).set_rate(0.0, 1, 0)


@given(
    st.floats(0.5, 100),
    st.floats(1, 50),
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
)
def test_never_more_than_capacity_plus_rate_in_any_span(
    rate: float, capacity: float, pauses: list[float]
) -> None:
    """In any span of t seconds at most capacity + rate x t requests begin, and they begin in order of asking."""
    bucket, now, begins = TokenBucket(rate, capacity), 0.0, []
    for pause in pauses:
        now += pause
        begins.append(now + bucket.reserve(now))
    for i, first in enumerate(begins):
        for j in range(i, len(begins)):
            assert j - i + 1 <= capacity + rate * (begins[j] - first) + 1 + 1e-6
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(begins))


def test_what_is_not_there_is_not_taken() -> None:
    """take() never waits and never owes: whole tokens, as many as there are and are wanted."""
    bucket = TokenBucket(2.0, 4.0)
    assert [bucket.take(0.0, 3), bucket.take(0.0, 3), bucket.take(0.0, 3)] == [3, 1, 0]
    assert [bucket.take(0.7, 9), bucket.take(1.0, 9), bucket.take(9.0, 9)] == [1, 1, 4]
    assert bucket.reserve(9.0, 1.0) == 0.5
    assert bucket.take(9.0, 1) == 0
