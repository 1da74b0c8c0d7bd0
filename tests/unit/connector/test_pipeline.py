"""One family's writer over a lane that is lost while its database is away."""

import asyncio
from typing import cast

import pytest

from libs.flow.batch import Limits
from libs.marketdata.rows import TradeRow
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store import steady
from libs.store.batches import SealedBatch
from libs.store.errors import LaneLost, StoreUnavailable
from libs.store.lanes import Committed, LaneWriter
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline


class FakeLane:
    """Loses its lane at the first write, is away for the next two calls, then takes everything."""

    def __init__(self) -> None:
        self.lane = "old"
        self.faults: list[Exception] = [
            LaneLost("unknown_lane"), StoreUnavailable("away"), StoreUnavailable("away"),
        ]  # fmt: skip
        self.committed: list[tuple[str, SealedBatch]] = []

    async def write(self, batch: SealedBatch) -> Committed:
        if self.faults:
            raise self.faults.pop(0)
        self.committed.append((self.lane, batch))
        return cast(Committed, None)

    async def reopen(self) -> None:
        self.lane = "new"
        if self.faults:
            raise self.faults.pop(0)


def trade(trade_id: str) -> TradeRow:
    return TradeRow(1, 1, 100, 40_000, 60_000, True, trade_id, "A", None, None, None, None, None)


async def test_a_lane_lost_while_the_database_is_away_is_left_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything held stands on the new lane in its order, and the channel of the family has its cause."""
    monkeypatch.setattr(steady, "WAIT_S_MIN", 0.001)
    outlets = Outlets(dict.fromkeys(Family, Limits(100, 1 << 30, 1000)), 1 << 20)
    lane = FakeLane()
    pipeline = Pipeline(
        Family.TRADES, outlets, Buffer(Family.TRADES, 100), cast(LaneWriter, lane), SystemClock(), Metrics("a")
    )  # fmt: skip
    outlets.batchers[Family.TRADES].table("trades").append(trade("t1"))
    async with asyncio.timeout(60):
        running = asyncio.ensure_future(pipeline.run())
        pipeline.finish()
        await running
    assert [(name, batch.rows) for name, batch in lane.committed] == [("new", 1)]
    assert pipeline.written == {"trades": 1}
    gaps = outlets.batchers[Family.REST].table("gaps")
    assert [(g[2], g[4]) for g in gaps] == [
        ("trade", "database_went_back"),
    ]
    assert outlets.batchers[Family.REST].count == 1


async def test_a_new_lane_is_never_seen_beside_openings_of_the_old_one() -> None:
    """Who dies with the new lane open has written beside its spool that its streams are to be restated there."""
    outlets = Outlets(dict.fromkeys(Family, Limits(100, 1 << 30, 1000)), 1 << 20)
    buffer, seen = Buffer(Family.TRADES, 100), list[int]()

    class Watched(FakeLane):
        async def reopen(self) -> None:
            seen.append(buffer.openings.losses)
            self.faults.clear()
            await super().reopen()

    pipeline = Pipeline(
        Family.TRADES, outlets, buffer, cast(LaneWriter, Watched()), SystemClock(), Metrics("a")
    )
    outlets.batchers[Family.TRADES].table("trades").append(trade("t1"))
    pipeline.finish()
    async with asyncio.timeout(60):
        await pipeline.run()
    assert seen == [1]
