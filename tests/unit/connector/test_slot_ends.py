"""What a pipeline still writes at its end."""

import asyncio
from typing import cast

import pytest

from libs.flow.batch import Limits
from libs.marketdata.rows import RejectedFrameRow, TradeRow
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store.batches import SealedBatch
from libs.store.lanes import Committed, LaneWriter
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer
from services.connector.draining import flush
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline


class FakeLane:
    """Takes everything, after `opened` is set."""

    def __init__(self, opened: asyncio.Event) -> None:
        self.opened = opened
        self.tables: list[str] = []

    async def write(self, batch: SealedBatch) -> Committed:
        await self.opened.wait()
        self.tables += [table.name for table in batch.tables]
        return cast(Committed, None)


TRADE = TradeRow(1, 1, 100, 40_000, 60_000, True, "t", "A", None, None, None, None, None)
REJECTED = RejectedFrameRow(1, 0, False, "why", b"x", None, None, None, None, None)


@pytest.mark.parametrize(
    ("family", "table", "row"),
    [(Family.TRADES, "trades", TRADE), (Family.REST, "rejected_frames", REJECTED)],
)
async def test_the_last_drop_is_written_down_though_nothing_follows_it(
    family: Family, table: str, row: tuple[object, ...]
) -> None:
    """A drop that no later batch of its family reports becomes a gap row at the end, and is committed."""
    outlets = Outlets(dict.fromkeys(Family, Limits(1, 1 << 30, 1000)), 1 << 20)
    opened, clock, metrics = asyncio.Event(), SystemClock(), Metrics("a")
    lanes = {f: FakeLane(opened) for f in Family}
    pipelines = {
        f: Pipeline(f, outlets, Buffer(f, 1), cast(LaneWriter, lanes[f]), clock, metrics)
        for f in Family
    }
    for _ in range(2):
        outlets.batchers[family].table(table).append(row)
        pipelines[family].pump_full(clock.now())
    assert pipelines[family].buffer.dropped == {table: 1}
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        writers = {f: group.create_task(p.run()) for f, p in pipelines.items()}
        opened.set()
        assert await flush(pipelines, writers, 30.0) == set()
    assert lanes[Family.REST].tables.count("gaps") == 1
    assert lanes[family].tables.count(table) == 1
