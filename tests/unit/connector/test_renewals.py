"""What follows rows that were lost on their way to the database: books are asked for anew, openings are restated."""

import json
from typing import Any, Literal, cast
from uuid import UUID

import pytest

from libs.flow.batch import Batch, Limits
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store.batches import SealedBatch
from libs.store.errors import LaneLost
from libs.store.lanes import Committed, LaneWriter
from libs.telemetry.metrics import Metrics
from services.connector import buffer as buffers
from services.connector import session as sessions
from services.connector.buffer import Buffer
from services.connector.openings import rows_of
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline
from services.connector.session import Session
from tests.unit.connector.test_session import NOW, Desk, S


def heard(*tickers: str) -> Desk:
    """A subscribed order-book session with a first snapshot of every market."""
    desk = Desk(tickers=tickers)
    desk.subscribe()
    for seq, ticker in enumerate(tickers, start=1):
        desk.snapshot(seq, ticker)
    return desk


def book(session: Session) -> Any:
    assert session.book_sid is not None
    return session.book_sid


def asked(desk: Desk, now: int = NOW) -> list[str]:
    """Which books are asked for at a tick."""
    commands = [c["params"] for c in desk.commands(now) if c["cmd"] == "update_subscription"]
    assert all(command["action"] == "get_snapshot" for command in commands)
    return [ticker for command in commands for ticker in command["market_tickers"]]


def test_the_books_of_a_sid_that_lost_rows_are_asked_for_once() -> None:
    """All of its markets, for a hole in the ranges is one of every stream."""
    desk = heard("A", "B")
    assert asked(desk) == []
    book(desk.session).missed()
    assert asked(desk) == ["A", "B"]
    assert asked(desk) == []
    assert desk.session.noted["renewed"] == 1


def test_one_that_does_not_come_is_asked_for_again() -> None:
    """By the same road as after a gap of numbers."""
    desk = heard("A", "B")
    book(desk.session).missed()
    asked(desk)
    desk.snapshot(3, "A")
    assert asked(desk, NOW + 10 * S) == ["B"]


def test_they_are_asked_for_in_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of each connection at a time, and no more a second than the process may."""
    monkeypatch.setattr(sessions, "RENEWALS_MAX", 2)
    desk = heard("A", "B", "C", "D", "E")
    assert desk.outlets.renewals.take(NOW / S, 1 << 30) > 0
    book(desk.session).missed()
    assert asked(desk) == []
    assert desk.session.markets.requests.renewals == 5
    found = [asked(desk, NOW + n * S) for n in (1, 2, 3, 4)]
    assert found == [["A", "B"], ["C", "D"], ["E"], []]


def test_a_gap_of_numbers_goes_first() -> None:
    """It ends what is heard now; a hole that lies behind can wait."""
    desk = heard("A", "B")
    desk.outlets.renewals.take(NOW / S, 1 << 30)
    book(desk.session).missed()
    desk.commands()
    desk.delta(9)
    assert asked(desk) == ["A", "B"]
    assert asked(desk, NOW + S) == []


def test_a_market_that_is_gone_is_not_asked_for() -> None:
    """Given back while it waited."""
    desk = heard("A", "B")
    desk.outlets.renewals.take(NOW / S, 1 << 30)
    book(desk.session).missed()
    desk.session.want(("B",))
    (delete,) = desk.commands()
    assert delete["params"]["action"] == "delete_markets"
    desk.send("ok", 3, id=delete["id"])
    assert asked(desk, NOW + S) == ["B"]


def cut(desk: Desk) -> Batch:
    batch = desk.outlets.batchers[Family.DELTAS].cut(NOW)
    assert batch is not None
    return batch


def test_a_drop_lets_the_books_be_asked_for_when_there_is_room_again() -> None:
    """Not before: what is asked for while rows are dropped does not help."""
    desk, buffer = heard("A", "B"), Buffer(Family.DELTAS, 1)
    buffer.put(cut(desk), NOW)
    desk.delta(3)
    buffer.put(cut(desk), NOW)
    assert buffer.dropped["orderbook_deltas"] == 1
    assert not book(desk.session).is_missing
    desk.delta(4)
    buffer.commit()
    (gap,) = buffer.put(cut(desk), NOW)
    assert gap.reason == "spool_full"
    assert book(desk.session).is_missing


def test_not_too_much_is_restated_on_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next sid comes with its next frame: its claims begin with that one, and are all there."""
    monkeypatch.setattr(buffers, "RESTATED_MAX", 2)
    desk, buffer = heard("A", "B"), Buffer(Family.DELTAS, 1)
    other = Desk(tickers=("C",))
    other.outlets = desk.outlets
    other.session = Session(
        "orderbook/1", UUID(int=6), desk.outlets, desk.session.settings, NOW, NOW
    )
    other.session.want(("C",))
    other.subscribe()
    other.snapshot(1, "C")
    buffer.put(cut(desk), NOW)
    openings = []
    for seq in (3, 4, 5):
        desk.delta(seq)
        other.delta(seq - 1, "C")
        batch = cut(desk)
        if seq > 3:
            buffer.commit()
        buffer.put(batch, NOW)
        openings.append([(row.ticker, row.seq) for row in batch.restated])
    assert openings == [[], [("A", 4), ("B", 4)], [("C", 4)]]


LostReason = Literal["database_went_back", "closed", "unknown_lane"]


class Lost:
    """A lane that is lost at the first write."""

    def __init__(self, reason: LostReason) -> None:
        self.lane, self.faults = "lane", [LaneLost(reason)]

    async def write(self, batch: SealedBatch) -> Committed:
        if self.faults:
            raise self.faults.pop()
        return cast(Committed, None)

    async def reopen(self) -> None: ...


@pytest.mark.parametrize(
    ("reason", "renewed"), [("database_went_back", True), ("unknown_lane", True), ("closed", False)]
)
async def test_a_lost_lane_lets_all_books_be_asked_for(reason: LostReason, renewed: bool) -> None:
    """What was committed may be undone; a lane that somebody closed has lost nothing."""
    outlets = Outlets(dict.fromkeys(Family, Limits(10**6, 1 << 30, 50_000)), 1 << 20)
    desk = Desk()
    desk.outlets = outlets
    desk.session = Session("orderbook/0", UUID(int=5), outlets, desk.session.settings, NOW, NOW)
    desk.session.want(("A",))
    desk.subscribe()
    desk.snapshot(1, "A")
    pipeline = Pipeline(
        Family.DELTAS, outlets, Buffer(Family.DELTAS, 100), cast(LaneWriter, Lost(reason)), SystemClock(),
        Metrics("a"),
    )  # fmt: skip
    pipeline.finish()
    await pipeline.run()
    assert book(desk.session).is_missing is renewed
    assert json.dumps(asked(desk)) == ('["A"]' if renewed else "[]")


def test_many_openings_are_restated_in_parts_before_the_batch_that_they_lead_up_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each part bounded; all of them name the batch's first frame, the batch comes last, and nothing is said twice."""
    monkeypatch.setattr(buffers, "RESTATED_MAX", 2)
    desk, buffer = heard("A", "B", "C", "D", "E"), Buffer(Family.DELTAS, 100)
    buffer.put(cut(desk), NOW)
    buffer.commit()
    desk.delta(6)
    buffer.put(cut(desk), NOW)
    desk.delta(7)
    buffer.put(cut(desk), NOW)
    buffer.leave(desk.outlets.batchers[Family.DELTAS].sources, NOW)
    written = []
    for _ in range(4):
        record = buffer.peek()
        assert record is not None
        assert buffer.peek() is record
        rows = [(r.ticker, r.seq) for r in rows_of(record.sealed, "listen_opened")]
        written.append((record.number, rows, record.counts.get("orderbook_deltas", 0), len(buffer)))
        buffer.commit()
    assert written == [
        (2, [("A", 6), ("B", 6)], 0, 2),
        (2, [("C", 6), ("D", 6)], 0, 2),
        (2, [("E", 6)], 1, 2),
        (3, [], 1, 1),
    ]


def test_a_lane_lost_between_two_parts_begins_them_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on the lane that was left may be undone."""
    monkeypatch.setattr(buffers, "RESTATED_MAX", 2)
    desk, buffer = heard("A", "B", "C", "D", "E"), Buffer(Family.DELTAS, 100)
    buffer.put(cut(desk), NOW)
    buffer.commit()
    desk.delta(6)
    buffer.put(cut(desk), NOW)
    found = []
    for parts in (2, 3):
        buffer.leave(desk.outlets.batchers[Family.DELTAS].sources, NOW)
        for _ in range(parts):
            record = buffer.peek()
            assert record is not None
            found.append([r.ticker for r in rows_of(record.sealed, "listen_opened")])
            buffer.commit()
    assert found == [["A", "B"], ["C", "D"], ["A", "B"], ["C", "D"], ["E"]]
    assert len(buffer) == 0
