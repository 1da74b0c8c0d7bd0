"""Batches: bounds, receipts of what they hold, restated openings."""

from collections.abc import Iterable
from uuid import UUID

import pytest

from libs.flow.batch import (
    ROW_BYTES,
    Alive,
    Batch,
    Batcher,
    Closing,
    Limits,
    Notes,
    SidKey,
    restate,
)
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.tables import Family

S = 1_000_000
CONNECTION = UUID(int=1)
LIMITS = Limits(rows=10, size_bytes=100_000, age=50_000)


def ranged(first: int, last: int) -> ListenRangeRow:
    return ListenRangeRow(
        0, first, last, first * S, last * S, S, 1, 0, CONNECTION, "orderbook_delta"
    )


def closing(ticker: str, stream: int, seq: int, opened_seq: int) -> Closing:
    row = ListenClosedRow(0, seq, seq * S, stream, 1, 0, CONNECTION, "orderbook_delta", "x", ticker)
    return Closing(row, opened_seq)


class FakeSid:
    """A source whose answers are set by hand."""

    def __init__(self, streams: Iterable[Alive] = ()) -> None:
        self.key: SidKey = (CONNECTION, 1)
        self.slot = "orderbook/0"
        self.ended = False
        self.streams = list(streams)
        self.notes: Notes | None = None

    def drain(self, now: int) -> Notes | None:
        notes, self.notes = self.notes, None
        return notes

    def alive(self) -> Iterable[Alive]:
        return self.streams

    def reopening(self, alive: Alive, seq: int, sent_at: int, now: int) -> ListenOpenedRow:
        return ListenOpenedRow(
            now,
            seq,
            sent_at,
            S,
            alive.stream,
            1,
            0,
            CONNECTION,
            "orderbook_delta",
            self.slot,
            alive.ticker,
        )

    def missed(self) -> None:
        raise AssertionError("batches know of no loss")


def batcher() -> Batcher:
    return Batcher(Family.DELTAS, ["orderbook_deltas"], LIMITS)


def test_nothing_makes_no_batch() -> None:
    """Time alone is no reason to commit."""
    made = batcher()
    made.touch(0)
    assert made.is_due(50_000)
    assert made.cut(50_000) is None
    assert not made.is_due(10**9)


def test_count_bytes_and_age_each_make_it_due() -> None:
    """Whichever comes first."""
    by_count = batcher()
    by_count.table("orderbook_deltas").extend([(1,)] * 10)
    assert by_count.is_full
    by_bytes = batcher()
    by_bytes.table("orderbook_deltas").append((1,))
    by_bytes.grow(100_000 - ROW_BYTES - 1)
    before = by_bytes.is_full
    by_bytes.grow(1)
    assert (before, by_bytes.is_full) == (False, True)
    by_age = batcher()
    by_age.touch(1_000)
    by_age.touch(40_000)
    assert not by_age.is_due(50_999)
    assert by_age.is_due(51_000)


def test_a_row_that_somebody_waits_for_makes_its_batch_due_sooner() -> None:
    """The first such row says when, and only once is it told to look again; the next batch has its own age."""
    batcher = Batcher(Family.REST, ["market_lifecycle"], Limits(10, 1 << 20, 1_000))
    batcher.touch(50)
    assert not batcher.take_hurry()
    for now in (60, 90):
        batcher.table("market_lifecycle").append((now,))
        batcher.hurry(now, 100)
    assert (batcher.take_hurry(), batcher.take_hurry()) == (True, False)
    assert (batcher.due_in(100), batcher.is_due(159), batcher.is_due(160)) == (60, False, True)
    assert batcher.cut(160) is not None
    batcher.touch(200)
    assert (batcher.due_in(200), batcher.is_due(1_199), batcher.is_due(1_200)) == (
        1_000,
        False,
        True,
    )


def test_a_cut_takes_rows_and_what_the_sids_prove() -> None:
    """The lists stay the same objects, so that bound appends go on working."""
    made, sid = batcher(), FakeSid()
    table = made.table("orderbook_deltas")
    table.append((7,))
    made.attach(sid)
    sid.notes = Notes([ranged(1, 4)], [], [closing("A", 1, 3, 1)])
    made.touch(5)
    batch = made.cut(9)
    assert batch is not None
    assert batch.rows == {
        "orderbook_deltas": [(7,)],
        "listen_ranges": [ranged(1, 4)],
        "listen_closed": [closing("A", 1, 3, 1).row],
    }
    assert (batch.first_at, batch.facts, batch.count, batch.sources) == (5, 1, 3, {sid.key: sid})
    assert made.table("orderbook_deltas") is table
    assert len(table) == 0


def test_an_ended_sid_is_forgotten_after_its_last_cut() -> None:
    """Its closing still goes out."""
    made, sid = batcher(), FakeSid()
    made.attach(sid)
    sid.ended, sid.notes = True, Notes([], [], [closing("A", 1, 3, 1)])
    assert made.cut(0) is not None
    assert made.sources == []


def batch_of(sid: FakeSid, ranges: list[ListenRangeRow], closed: list[Closing]) -> Batch:
    notes = {sid.key: Notes(ranges, [], closed)}
    return Batch(Family.DELTAS, {}, notes, {sid.key: sid}, 0)


def test_streams_opened_before_the_first_batch_are_restated_at_its_first_frame() -> None:
    """Those that begin in it have an opening of their own."""
    sid = FakeSid([Alive("A", 1, 2), Alive("B", 2, 10), Alive("C", 3, 12)])
    batch = batch_of(sid, [ranged(10, 20)], [])
    assert restate([batch], {sid.key: sid}, 99) == {}
    assert [(r.ticker, r.stream, r.seq, r.sent_at) for r in batch.restated] == [
        ("A", 1, 10, 10 * S)
    ]
    assert batch.opened_rows() == batch.restated


def test_streams_that_ended_in_a_later_batch_are_restated_too() -> None:
    """One that ended before the first frame is not."""
    sid = FakeSid([])
    first = batch_of(sid, [ranged(10, 20)], [closing("Z", 9, 9, 1)])
    second = batch_of(sid, [ranged(21, 30)], [closing("A", 1, 25, 2), closing("B", 2, 26, 22)])
    restate([first, second], {sid.key: sid}, 0)
    assert [(r.ticker, r.seq) for r in first.restated] == [("A", 10)]
    assert second.restated == []


def test_a_sid_without_frames_is_restated_later_unless_it_ended() -> None:
    """It stays on the list of the lost."""
    sid = FakeSid([Alive("A", 1, 2)])
    batch = batch_of(sid, [], [])
    assert restate([batch], {sid.key: sid}, 0) == {sid.key: sid}
    sid.ended = True
    assert restate([batch], {sid.key: sid}, 0) == {}


def test_a_sid_does_not_push_out_another_of_its_key() -> None:
    """What the first proved would be lost without a trace."""
    made, sid = batcher(), FakeSid()
    made.attach(sid)
    made.attach(sid)
    with pytest.raises(ValueError, match="attached already"):
        made.attach(FakeSid())
    assert made.sources == [sid]


def test_a_clock_that_was_set_back_keeps_no_batch_waiting() -> None:
    """The first row lies after now: the batch is due at once, and the next one waits its age again."""
    batcher = Batcher(Family.DELTAS, ["orderbook_deltas"], LIMITS)
    batcher.touch(3600 * S)
    assert not batcher.is_due(3600 * S + 49_999)
    assert batcher.is_due(3600 * S + 50_000)
    assert batcher.is_due(5 * S)
    batcher.cut(5 * S)
    assert not batcher.is_due(5 * S)
    batcher.touch(6 * S)
    assert [batcher.is_due(6 * S + age) for age in (0, 49_999, 50_000)] == [False, False, True]


def test_the_next_look_comes_when_the_oldest_row_is_due() -> None:
    """A row that came just after a look waits for the rest of its age, not for another whole one."""
    batcher = Batcher(Family.TRADES, ["trades"], LIMITS)
    assert batcher.due_in(7 * S) == 50_000
    batcher.table("trades").append((1,))
    batcher.touch(7 * S)
    assert batcher.due_in(7 * S + 49_000) == 1_000
    assert batcher.due_in(7 * S + 60_000) == 0
    assert batcher.due_in(6 * S) == 50_000
