"""Streams: occurrence, pos and the cuts of snapshots."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.streams import CUTS_MAX, SHARED_MAX, Cut, Stream

MS = 1_000
A, B = (True, 52_000, 100), (False, 30_000, -100)


def stream() -> Stream:
    return Stream(1, 0, 1)


def test_equal_changes_of_one_millisecond_are_numbered() -> None:
    """Four identical orders pulled in one event are four facts."""
    s = stream()
    assert [s.count(5 * MS, c) for c in (A, A, B, A, B)] == [1, 2, 1, 3, 2]
    assert s.count(6 * MS, A) == 1


def test_pos_is_unknown_in_the_first_millisecond_and_counts_from_the_second() -> None:
    """The stream may have begun inside its first millisecond."""
    s = stream()
    places = []
    for ts in (5, 5, 6, 6, 9):
        s.count(ts * MS, A)
        places.append(s.pos)
    assert places == [None, None, 1, 2, 1]


def test_a_lower_time_goes_back_and_an_equal_one_does_not() -> None:
    """Only a lower ts_ms ends a stream."""
    s = stream()
    assert not s.goes_back(0)
    s.count(5 * MS, A)
    assert s.goes_back(4 * MS)
    assert not s.goes_back(5 * MS)


def test_begin_forgets_what_was_counted() -> None:
    """After a seq gap the numbers begin anew."""
    s = stream()
    s.count(5 * MS, A)
    s.snapshot(3)
    s.begin(1)
    assert (s.epoch, s.exchange_ts, s.pos, s.waiting, s.snapshots) == (1, -1, None, None, 0)
    assert s.count(5 * MS, A) == 1


def test_a_snapshot_in_a_whole_millisecond_has_its_cut_at_once() -> None:
    """The cut is the last delta before it: its millisecond and place."""
    s = stream()
    for ts in (5, 6, 6):
        s.count(ts * MS, A)
    assert s.snapshot(9) == (6 * MS, 2)
    assert s.waiting is None


def test_a_first_snapshot_waits_until_the_next_millisecond_is_over() -> None:
    """Its cut says how many deltas of the first later millisecond followed it."""
    s = stream()
    assert s.snapshot(1) is None
    found = []
    for ts in (5, 5, 6):
        if s.waiting is not None:
            found += s.follow(ts * MS)
        s.count(ts * MS, A)
    assert found == [Cut(1, 5 * MS, 2)]
    assert s.waiting is None


def test_snapshots_inside_the_first_millisecond_wait_too() -> None:
    """Nothing has a known place in that millisecond: each counts what followed it."""
    s = stream()
    s.snapshot(1)
    s.follow(5 * MS)
    s.count(5 * MS, A)
    assert s.snapshot(3) is None
    s.follow(5 * MS)
    s.count(5 * MS, A)
    assert s.follow(7 * MS) == [Cut(1, 5 * MS, 2), Cut(3, 5 * MS, 1)]


def test_time_alone_completes_a_cut() -> None:
    """A quiet market's cut is known once nothing of its millisecond can still come."""
    s = stream()
    s.snapshot(1)
    assert s.pass_time(100 * MS) == []
    s.follow(5 * MS)
    assert s.pass_time(5 * MS) == []
    assert s.pass_time(6 * MS) == [Cut(1, 5 * MS, 1)]
    assert s.pass_time(7 * MS) == []


def test_snapshots_of_a_quiet_market_share_one_cut() -> None:
    """Every one of them, the first above all, is completed by the first millisecond after them."""
    s = stream()
    for seq in range(3 * CUTS_MAX):
        assert s.snapshot(seq) is None
    s.follow(5 * MS)
    s.count(5 * MS, A)
    assert s.follow(6 * MS) == [Cut(seq, 5 * MS, 1) for seq in range(3 * CUTS_MAX)]


def test_waiting_snapshots_are_bounded() -> None:
    """The first and the newest are kept, of those that share a cut and of the cuts of the first millisecond."""
    s = stream()
    for seq in range(SHARED_MAX + 3):
        s.snapshot(seq)
    assert s.waiting is not None
    assert s.waiting[0].seqs == [0, *range(4, SHARED_MAX + 3)]
    s = stream()
    for seq in range(CUTS_MAX + 3):
        s.snapshot(seq)
        s.follow(5 * MS)
        s.count(5 * MS, A)
    assert s.waiting is not None
    assert [w.seqs for w in s.waiting] == [[0], *([n] for n in range(4, CUTS_MAX + 3))]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([A, B])), max_size=40))
def test_numbers_equal_those_of_a_plain_count(
    steps: list[tuple[int, tuple[bool, int, int]]],
) -> None:
    """occurrence and pos equal counting everything of the millisecond from the start."""
    s, ts = stream(), 1 * MS
    of_change: Counter[object] = Counter()
    of_ms: Counter[int] = Counter()
    for step, change in steps:
        ts += step * MS
        of_change[ts, change] += 1
        of_ms[ts] += 1
        assert s.count(ts, change) == of_change[ts, change]
        assert s.pos == (None if len(of_ms) == 1 else of_ms[ts])
