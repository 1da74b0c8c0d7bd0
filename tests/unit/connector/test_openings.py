"""The streams that go on at the front: what is restated, and what must not be."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.sequence import START_MARGIN, START_MARGIN_UNSENT
from libs.store.batches import seal
from libs.store.spool_format import Gone, Record
from services.connector.openings import Openings, with_openings

ONE, TWO = UUID(int=1), UUID(int=2)
KEY = (ONE, 1)


def opened(ticker: str | None, stream: int, seq: int, channel: str = "orderbook_delta") -> Any:
    return ListenOpenedRow(9, seq, 10 * seq, START_MARGIN, stream, 1, 0, ONE, channel, "s", ticker)


def closed(ticker: str | None, stream: int, seq: int) -> Any:
    return ListenClosedRow(9, seq, 10 * seq, stream, 1, 0, ONE, "orderbook_delta", "why", ticker)


def ranged(low: int, high: int, margin: int = START_MARGIN, connection: UUID = ONE) -> Any:
    return ListenRangeRow(
        9, low, high, 10 * low, 10 * high, margin, 1, 0, connection, "orderbook_delta"
    )


def record(number: int, **rows: list[Any]) -> Record:
    return Record(number, 1, seal({f"listen_{name}": found for name, found in rows.items()}))


def begun() -> Openings:
    """A, B and C are open; then what was committed is lost."""
    openings = Openings()
    rows = [opened(t, n, n) for n, t in enumerate("ABC", 1)]
    openings.apply(record(1, ranges=[ranged(1, 3)], opened=rows))
    openings.lose()
    return openings


def restated(openings: Openings, next_: Record) -> set[tuple[Any, ...]]:
    rows = list(openings.restate(next_, 77, {}))
    assert all((row.received_at, row.slot, row.sid) == (77, "s", 1) for row in rows)
    return {(row.ticker, row.stream, row.seq, row.sent_at) for row in rows}


def test_what_was_open_before_a_sids_first_frame_is_restated_there() -> None:
    """Once: at the first batch that has frames of the sid; what opens in it states itself."""
    openings = begun()
    other = record(2, ranges=[ranged(5, 6, connection=TWO)])
    assert restated(openings, other) == set()
    openings.apply(other)
    after = record(3, ranges=[ranged(4, 6), ranged(8, 9)], opened=[opened("D", 4, 5)])
    assert restated(openings, after) == {(t, n, 4, 40) for n, t in enumerate("ABC", 1)}
    openings.apply(after)
    assert restated(openings, record(4, ranges=[ranged(10, 11)])) == set()
    openings.lose()
    assert len(restated(openings, record(4, ranges=[ranged(10, 11)]))) == 4


def test_what_ended_before_it_is_not() -> None:
    """Closed in a batch between, closed before the first frame of this one, or closed in what was dropped."""
    openings = begun()
    openings.apply(record(2, closed=[closed("A", 1, 3)]))
    after = record(3, ranges=[ranged(4, 6)], closed=[closed("B", 2, 3), closed("C", 3, 5)])
    assert restated(openings, after) == {("C", 3, 4, 40)}
    dropped = replace(after, gone=(Gone(ONE, 1, "C", 9),))
    assert restated(openings, dropped) == set()
    openings.apply(dropped)
    assert openings.sids == {KEY: ("orderbook_delta", "s")}
    openings.lose()
    assert restated(openings, record(4, ranges=[ranged(7, 8)])) == set()


def test_an_older_closing_does_not_end_a_newer_stream() -> None:
    """A time that went back closes and opens in one frame, and a drop may hide several of them."""
    openings = begun()
    openings.apply(record(2, opened=[opened("A", 7, 4)], closed=[closed("A", 1, 3)]))
    openings.apply(replace(record(3, ranges=[ranged(5, 5)]), gone=(Gone(ONE, 1, "A", 6),)))
    openings.lose()
    assert ("A", 7, 6, 60) in restated(openings, record(4, ranges=[ranged(6, 6)]))


def test_all_streams_of_a_sid_is_no_stream_of_its_own() -> None:
    """On books a NULL opening carries the others on; on whole channels it is the stream."""
    openings = begun()
    openings.apply(record(2, closed=[closed(None, 0, 3)], opened=[opened(None, 0, 5)]))
    found = restated(openings, record(3, ranges=[ranged(5, 6)]))
    assert {ticker for ticker, *_ in found} == {"A", "B", "C"}
    whole = Openings()
    whole.apply(record(1, opened=[opened(None, 1, 0, "trade")], ranges=[ranged(0, 0)]))
    whole.lose()
    assert restated(whole, record(2, ranges=[ranged(1, 2)])) == {(None, 1, 1, 10)}


def test_a_sid_that_ended_is_forgotten() -> None:
    """Nothing of it can follow."""
    openings = begun()
    openings.apply(replace(record(2, closed=[closed(None, 0, 3)]), ended=(KEY,)))
    assert openings.sids == {}
    assert restated(openings, record(3, ranges=[ranged(5, 6)])) == set()


@pytest.mark.parametrize(
    ("margin", "start"),
    [(START_MARGIN, START_MARGIN), (START_MARGIN_UNSENT, START_MARGIN_UNSENT)],
)
def test_a_start_that_may_be_of_our_clock_has_the_wider_margin(margin: int, start: int) -> None:
    """The range's margin tells, since nobody else is left to ask."""
    (row, *_) = begun().restate(record(2, ranges=[ranged(4, 6, margin)]), 1, {})
    assert row.margin == start


def test_it_comes_back_as_it_was_kept() -> None:
    """With the streams, with what is still to be restated, and as of the right record."""
    openings = begun()
    openings.apply(record(2, opened=[opened(None, 5, 0, "trade")]))
    again, done = Openings.load(openings.dump(2).pack())
    assert done == 2
    after = record(3, ranges=[ranged(4, 6)])
    assert again.sids == openings.sids
    assert restated(again, after) == restated(openings, after) != set()
    with pytest.raises(ValueError, match="no state"):
        Openings.load(b"{}")


def test_what_is_not_known_is_not_restated() -> None:
    """After a loss on the disk only what opens later is known."""
    openings = begun()
    openings.forget()
    openings.apply(record(2, opened=[opened("D", 8, 5)], ranges=[ranged(5, 5)]))
    openings.lose()
    assert restated(openings, record(3, ranges=[ranged(6, 6)])) == {("D", 8, 6, 60)}


def test_a_snapshot_costs_no_copy_and_does_not_change() -> None:
    """A million streams are not copied at once: a sid's are when it changes next, and the snapshot keeps the old ones."""
    openings = begun()
    snapshot, again = openings.dump(1), openings.dump(1)
    before = snapshot.pack()
    assert snapshot.sids[0][5] is again.sids[0][5]
    openings.apply(
        record(2, ranges=[ranged(4, 6)], opened=[opened("D", 4, 5)], closed=[closed("A", 1, 4)])
    )
    assert snapshot.pack() == before
    assert set(snapshot.sids[0][5]) == {"A", "B", "C"}
    assert set(openings.dump(2).sids[0][5]) == {"B", "C", "D"}


def test_what_was_restated_changes_nothing_of_what_goes_on() -> None:
    """So that it need not be read back: a batch leaves the same state with its restated rows and without."""
    after = record(
        2, ranges=[ranged(4, 9)], opened=[opened("A", 4, 6)], closed=[closed("A", 1, 5), closed("B", 2, 7)]
    )  # fmt: skip
    with_rows, without = begun(), begun()
    offered = replace(
        after, sealed=with_openings(after.sealed, list(with_rows.restate(after, 77, {})))
    )
    assert offered.sealed.rows == after.sealed.rows + 3
    with_rows.apply(offered)
    without.apply(after)
    assert with_rows.dump(2).pack() == without.dump(2).pack()
    assert restated(with_rows, record(3, ranges=[ranged(10, 11)])) == set()
