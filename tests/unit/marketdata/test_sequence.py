"""Sequence: runs, gaps, old numbers, margins."""

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.sequence import Margin, Run, Sequence, Step

S = 1_000_000


def test_the_subscribed_answer_is_frame_zero() -> None:
    """A sid without any other frame has proved 0..0."""
    sequence = Sequence(7 * S)
    first = sequence.running
    assert first == (0, 7 * S)
    assert sequence.drain() == [Run(0, 0, 7 * S, 7 * S)]
    assert sequence.running is None
    assert sequence.drain() == []


def test_contiguous_frames_make_one_run_per_drain() -> None:
    """A drain cuts the run; the next one begins with the next frame."""
    sequence = Sequence(0)
    sequence.count(1, 1 * S)
    assert sequence.drain() == [Run(0, 1, 0, 1 * S)]
    sequence.count(2, 2 * S)
    sequence.count(3, 3 * S)
    assert sequence.running == (2, 2 * S)
    assert sequence.drain() == [Run(2, 3, 2 * S, 3 * S)]


def test_a_jump_makes_two_runs_and_judging_counts_nothing() -> None:
    """The missed numbers stand in neither."""
    sequence = Sequence(0)
    assert sequence.judge(1) is Step.NEXT
    assert sequence.judge(4) is Step.GAP
    assert sequence.judge(0) is Step.OLD
    sequence.count(4, 4 * S)
    assert sequence.judge(4) is Step.OLD
    assert sequence.running == (0, 0)
    assert sequence.drain() == [Run(0, 0, 0, 0), Run(4, 4, 4 * S, 4 * S)]


def test_a_jump_right_after_a_drain_makes_one_run() -> None:
    """Nothing was running, so nothing is finished."""
    sequence = Sequence(0)
    sequence.drain()
    sequence.count(3, 3 * S)
    assert sequence.drain() == [Run(3, 3, 3 * S, 3 * S)]


def test_the_margin_is_a_second_or_twice_the_largest_lag() -> None:
    """And five seconds where frames carry no sent_at."""
    margin = Margin()
    assert margin.value == S
    margin.observe(400_000)
    assert margin.value == S
    margin.observe(3 * S)
    margin.observe(1)
    assert margin.value == 6 * S
    other = Margin()
    other.unsent()
    assert other.value == 5 * S


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=30))
def test_runs_hold_exactly_the_frames_counted(steps: list[tuple[int, bool]]) -> None:
    """Whatever is skipped and whenever it is drained: runs are disjoint and complete."""
    sequence, seq, seen, runs = Sequence(0), 0, [0], []
    for skip, drains in steps:
        seq += skip
        sequence.count(seq, seq * S)
        seen.append(seq)
        if drains:
            runs += sequence.drain()
    runs += sequence.drain()
    assert [n for run in runs for n in range(run.seq_from, run.seq_to + 1)] == seen
    assert all(run.sent_from == run.seq_from * S and run.sent_to == run.seq_to * S for run in runs)
