"""Writers whose database comes and goes, over a lane that fails as it is told to."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from libs.marketdata.binary import codec
from libs.marketdata.rows import ExchangeStatusRow
from libs.runtime.clock import ManualClock
from libs.store import steady
from libs.store.batches import Rows, SealedBatch, seal
from libs.store.errors import LaneLost, SchemaAway, StoreUnavailable
from libs.store.lanes import Committed, LaneWriter
from libs.store.scribe import Scribe
from libs.store.steady import Patience, reopen_steadily, write_steadily
from libs.telemetry.metrics import Metrics

AWAY = StoreUnavailable("away")
WENT_BACK = LaneLost("database_went_back", "last 3, confirmed 5")


class FakeLane:
    """Every call takes the next fault, None for success; what is committed is kept, by lane."""

    def __init__(
        self, writes: Iterable[Exception | None], reopens: Iterable[Exception | None]
    ) -> None:
        self.writes, self.reopens = deque(writes), deque(reopens)
        self.committed: list[tuple[UUID, SealedBatch]] = []
        self.lane = uuid4()
        self.calls: list[str] = []

    async def write(self, batch: SealedBatch) -> Committed:
        self.calls.append("write")
        self._fault(self.writes)
        self.committed.append((self.lane, batch))
        return Committed(self.lane, len(self.committed), len(self.committed))

    async def reopen(self) -> None:
        self.calls.append("reopen")
        self.lane = uuid4()
        self._fault(self.reopens)

    def _fault(self, faults: deque[Exception | None]) -> None:
        fault = faults.popleft() if faults else None
        if fault is not None:
            raise fault

    def rows(self, table: str) -> list[Any]:
        return [
            codec(table).decode(payload)[0]
            for _, batch in self.committed
            for sealed in batch.tables
            if sealed.name == table
            for payload in sealed.payloads
        ]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of nothing."""
    monkeypatch.setattr(steady, "WAIT_S_MIN", 0.001)
    monkeypatch.setattr(steady, "WAIT_S_MAX", 0.002)


def status(at: int) -> Rows:
    """One row."""
    return {"exchange_status": [ExchangeStatusRow(at, at, 0, "status", "{}", True, True)]}


def scribe_on(lane: FakeLane, stop: asyncio.Event | None = None, family: str = "rest") -> Scribe:
    return Scribe(
        cast(LaneWriter, lane),
        family,
        now=ManualClock(7).now,
        stop=stop or asyncio.Event(),
        metrics=Metrics("a"),
    )


async def test_the_same_batch_is_offered_until_it_is_committed() -> None:
    """Every absence is noted by the pauses, and forgotten when the database answers."""
    waits: list[int] = []
    lane = FakeLane([AWAY, AWAY, None], [])
    patience = Patience("rest", ManualClock(7).now, on_wait=lambda: waits.append(1))
    committed = await write_steadily(lane, seal(status(1)), patience)
    assert (committed.batch_no, len(waits), patience.is_away) == (1, 2, False)


async def test_reopening_waits_too() -> None:
    """A lane lost while the database is away is reopened when it is back."""
    lane = FakeLane([], [AWAY, AWAY, None])
    patience = Patience("rest", ManualClock(7).now)
    await reopen_steadily(lane, patience)
    assert (lane.calls, patience.is_away) == (["reopen"] * 3, False)


async def test_it_is_said_once_that_the_database_is_away_and_once_that_its_schema_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Back without its tables it is another thing to mend; what is wrong with them is in the message."""
    said: list[tuple[str, str]] = []

    class Log:
        def warning(self, event: str, *, error: str, **_: Any) -> None:
            said.append((event, error))

        def info(self, event: str, **_: Any) -> None:
            said.append((event, ""))

    monkeypatch.setattr(steady, "log", Log())
    unfit = SchemaAway("no table lanes")
    lane = FakeLane([AWAY, AWAY, unfit, unfit, None, None], [])
    patience = Patience("rest", ManualClock(7).now)
    for number in (1, 2):
        await write_steadily(lane, seal(status(number)), patience)
    assert said == [
        ("database_away", "away"), ("database_away", "no table lanes"), ("database_back", ""),
    ]  # fmt: skip


async def test_a_stop_ends_the_pause_and_begins_the_last_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A long pause is cut short by the stop; from then on the deadline counts, then the error comes out."""
    monkeypatch.setattr(steady, "WAIT_S_MIN", 600.0)
    monkeypatch.setattr(steady, "WAIT_S_MAX", 600.0)
    monkeypatch.setattr(steady, "STOP_S_MAX", 0.0)
    stop = asyncio.Event()
    lane = FakeLane([AWAY] * 10, [])
    patience = Patience("rest", ManualClock(7).now, stop=stop)
    async with asyncio.timeout(60):
        writing = asyncio.ensure_future(write_steadily(lane, seal(status(1)), patience))
        await asyncio.sleep(0)
        stop.set()
        with pytest.raises(StoreUnavailable):
            await writing
    assert lane.calls == ["write", "write"]


async def test_a_lane_lost_while_the_database_is_away_keeps_its_cause() -> None:
    """Nothing leaves the scribe; the rows and the cause stand together on the new lane."""
    lane = FakeLane([AWAY, WENT_BACK, AWAY, None], [AWAY, AWAY, None])
    first = lane.lane
    committed = await scribe_on(lane).write(status(1))
    assert committed.lane != first
    assert [row.received_at for row in lane.rows("exchange_status")] == [1]
    assert [(g.reason, g.channel) for g in lane.rows("gaps")] == [
        ("database_went_back", "market_lifecycle_v2")
    ]


async def test_every_lost_lane_has_its_cause() -> None:
    """Lost again before anything stood on the new lane: both causes are written, once."""
    lane = FakeLane([WENT_BACK, LaneLost("unknown_lane"), None, None], [])
    scribe = scribe_on(lane, family="trades")
    await scribe.write(status(1))
    await scribe.write(status(2))
    gaps = lane.rows("gaps")
    assert [g.channel for g in gaps] == ["trade"] * 2
    assert ["unknown_lane" in g.detail for g in gaps] == [False, True]
    assert [row.received_at for row in lane.rows("exchange_status")] == [1, 2]


async def test_a_cause_outlives_a_write_that_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping while the lane is reopened: the caller is told, and the next write still brings the cause."""
    monkeypatch.setattr(steady, "STOP_S_MAX", 0.0)
    stop = asyncio.Event()
    stop.set()
    lane = FakeLane([WENT_BACK], [AWAY])
    scribe = scribe_on(lane, stop)
    with pytest.raises(StoreUnavailable):
        await scribe.write(status(1))
    await scribe.write(status(2))
    assert [g.reason for g in lane.rows("gaps")] == ["database_went_back"]
    assert [row.received_at for row in lane.rows("exchange_status")] == [2]


async def test_a_lane_closed_by_a_successor_has_no_cause() -> None:
    """Nothing was lost."""
    lane = FakeLane([LaneLost("closed"), None], [AWAY, None])
    await scribe_on(lane).write(status(1))
    assert lane.rows("gaps") == []
