"""The schedule of markets to look at."""

from hypothesis import given
from hypothesis import strategies as st

from services.registry.schedule import Schedule


def test_due_tickers_come_out_earliest_first_and_once() -> None:
    """What is due is taken in order; what is taken is gone."""
    schedule = Schedule()
    for ticker, at in (("B", 20), ("A", 10), ("C", 30)):
        schedule.put(ticker, at)
    assert schedule.next_at() == 10
    assert schedule.take(25, 10) == ["A", "B"]
    assert schedule.take(25, 10) == []
    assert (len(schedule), schedule.next_at()) == (1, 30)


def test_the_last_word_counts() -> None:
    """Moving a ticker forgets its old time; None takes it out; put_earlier never delays."""
    schedule = Schedule()
    schedule.put("A", 10)
    schedule.put("A", 50)
    assert (schedule.take(40, 9), schedule.next_at()) == ([], 50)
    schedule.put_earlier("A", 60)
    assert schedule.next_at() == 50
    schedule.put_earlier("A", 45)
    assert schedule.next_at() == 45
    schedule.put("A", None)
    assert (schedule.take(100, 9), schedule.next_at()) == ([], None)


def test_a_limit_leaves_the_rest() -> None:
    """At most `limit` come at once, the others stay due."""
    schedule = Schedule()
    for n in range(5):
        schedule.put(f"T{n}", n)
    assert schedule.take(10, 2) == ["T0", "T1"]
    assert schedule.take(10, 9) == ["T2", "T3", "T4"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.none() | st.integers(0, 50)), max_size=600))
def test_equals_a_plain_dictionary(steps: list[tuple[str, int | None]]) -> None:
    """However often tickers move, what is due is what a dictionary says, and the heap stays small."""
    schedule, plain = Schedule(), dict[str, int]()
    for ticker, at in steps:
        schedule.put(ticker, at)
        if at is None:
            plain.pop(ticker, None)
        else:
            plain[ticker] = at
    assert len(schedule._heap) <= 65 + 4 * len(plain)
    due = sorted((at, ticker) for ticker, at in plain.items() if at <= 25)
    assert schedule.take(25, 100) == [ticker for _, ticker in due]
