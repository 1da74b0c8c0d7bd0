"""When a family is held back because the database has all the bytes it may take."""

import asyncio
from pathlib import Path
from random import Random
from typing import cast

import pytest

from libs.flow.batch import Batch, Limits
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.runtime.service import Runtime
from libs.store.batches import SealedBatch
from libs.store.lanes import Committed, LaneWriter
from libs.store.pool import Pool
from libs.telemetry.metrics import Metrics
from services.connector import inherited
from services.connector.buffer import Buffer
from services.connector.inherited import Legacy
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline
from services.connector.spooling import Spooling
from services.connector.storage import HELD, Level, Storage, keep_looking
from tests.unit.connector.spool_world import Database, Process
from tests.unit.connector.test_pipeline import trade

OK, NEAR, FULL = Level


def test_it_is_full_above_the_limit_and_has_room_again_well_below() -> None:
    """Told above 90 %; what resumes adds bytes at once, so that it must be below 95 % to resume."""
    storage, levels = Storage(1000), []
    for size in (900, 901, 1000, 1001, 990, 951, 950, 1001, 900):
        storage.see(size)
        levels.append(storage.level)
    assert levels == [OK, NEAR, NEAR, FULL, FULL, FULL, NEAR, FULL, OK]


def test_only_the_large_families_are_held() -> None:
    """Trades, lifecycle, gaps and snapshots go on whatever the size."""
    storage = Storage(1000)
    assert storage.see(1001)
    assert {family for family in Family if storage.holds(family)} == HELD
    assert storage.describe() == {
        "bytes": 1001, "bytes_max": 1000, "level": "full", "held": ["deltas", "tickers"],
    }  # fmt: skip


async def test_nothing_large_is_committed_before_the_first_look() -> None:
    """The process before us may have ended above the limit; a first look that fails holds nobody up."""
    storage = Storage(1000)
    assert {family for family in Family if storage.holds(family)} == HELD
    assert not storage.is_full
    storage.see(1)
    assert not any(map(storage.holds, Family))
    storage, ended = Storage(1000), asyncio.Event()
    pool, runtime = cast(Pool, AwayPool(ended)), cast(Runtime, FakeRuntime())
    async with asyncio.timeout(60):
        await keep_looking(storage, pool, runtime, ended)
    assert storage.size_bytes is None
    assert not any(map(storage.holds, Family))


def test_without_a_limit_nothing_is_held() -> None:
    """A laptop's default."""
    storage = Storage(0)
    assert not storage.see(1 << 50)
    assert not any(map(storage.holds, Family))


class AwayPool:
    """Has no connection to give; whoever asked once has asked enough."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended

    def acquire(self, *, timeout: float) -> None:
        self._ended.set()
        raise OSError("nobody there")


class FakeRuntime:
    metrics = Metrics("a")


class FakeLane:
    def __init__(self) -> None:
        self.rows = 0

    async def write(self, batch: SealedBatch) -> Committed:
        self.rows += batch.rows
        return cast(Committed, None)


class Held:
    """A pipeline of deltas that is held back, with trades as its rows because they are short."""

    def __init__(self, rows_max: int = 100) -> None:
        self.outlets = Outlets(dict.fromkeys(Family, Limits(2, 1 << 30, 1000)), 1 << 20)
        self.lane, self.storage, self.buffer = (
            FakeLane(),
            Storage(10),
            Buffer(Family.DELTAS, rows_max),
        )
        self.storage.see(11)
        self.pipeline = Pipeline(
            Family.DELTAS, self.outlets, self.buffer, cast(LaneWriter, self.lane), SystemClock(), Metrics("a"),
            storage=self.storage,
        )  # fmt: skip

    def put(self, rows: int) -> None:
        batch = Batch(Family.DELTAS, {"trades": [trade("t")] * rows}, {}, {}, 1)
        for gap in self.buffer.put(batch, 1):
            self.outlets.gap(gap, 1)


async def test_what_is_held_is_committed_as_soon_as_there_is_room() -> None:
    """Nothing reaches the lane before, and nobody who waits for what was collected waits for it."""
    held = Held()
    held.put(3)
    running = asyncio.ensure_future(held.pipeline.run())
    await asyncio.sleep(0)
    assert held.lane.rows == 0
    assert held.pipeline.has_written(held.pipeline.mark())
    held.storage.see(1)
    assert not held.pipeline.has_written(held.pipeline.mark())
    held.pipeline.finish()
    async with asyncio.timeout(60):
        await running
    assert held.lane.rows == 3


async def test_what_waits_for_the_first_look_is_waited_for() -> None:
    """It takes a moment, not days: a slot that is left is not to be reported as written meanwhile."""
    held = Held()
    held.storage = held.pipeline._storage = Storage(10)
    held.put(3)
    running = asyncio.ensure_future(held.pipeline.run())
    await asyncio.sleep(0)
    assert (held.lane.rows, held.pipeline.is_held) == (0, True)
    assert not held.pipeline.has_written(held.pipeline.mark())
    held.storage.see(11)
    assert held.pipeline.has_written(held.pipeline.mark())
    held.storage.see(1)
    held.pipeline.finish()
    async with asyncio.timeout(60):
        await running
    assert held.lane.rows == 3


async def test_an_end_before_the_first_look_leaves_nothing_to_the_disk() -> None:
    """A pod's disk goes with it; only a database that is known to be too large is spared."""
    held = Held()
    held.pipeline._storage = Storage(10)
    held.put(3)
    held.pipeline.spooling = cast(Spooling, type("Disk", (), {"poke": lambda _: None})())
    held.pipeline.finish()
    async with asyncio.timeout(60):
        await held.pipeline.run()
    assert (held.lane.rows, held.buffer.rows) == (3, 0)


@pytest.mark.parametrize(("has_disk", "rows"), [(True, 0), (False, 3)])
async def test_at_the_end_it_is_left_where_there_is_a_disk_for_it(
    has_disk: bool, rows: int
) -> None:
    """Without one it is committed all the same: some of what the volume has left, rather than lost."""
    held = Held()
    held.put(3)
    if has_disk:
        held.pipeline.spooling = cast(Spooling, type("Disk", (), {"poke": lambda _: None})())
    held.pipeline.finish()
    async with asyncio.timeout(60):
        await held.pipeline.run()
    assert (held.lane.rows, held.buffer.rows) == (rows, 3 - rows)


def test_one_span_without_room_is_one_gap_with_its_cause() -> None:
    """A small batch that would just fit does not end the drop; room for a quarter does, and the row counts all of it."""
    held = Held(rows_max=10)
    held.buffer.drops.reason = "storage_full"
    for rows in (8, 4, 1, 2):
        held.put(rows)
    assert held.buffer.rows == 8
    held.buffer.drops.reason = "spool_full"
    held.put(1)
    held.put(1)
    assert held.outlets.batchers[Family.REST].count == 0
    held.buffer.commit()
    held.put(7)
    gaps = held.outlets.batchers[Family.REST].table("gaps")
    assert [(gap[2], gap[4], gap[13]) for gap in gaps] == [("trade", "storage_full", 9)]


async def test_what_a_dead_process_left_is_held_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run waits for room as live batches do."""
    monkeypatch.setattr(inherited, "RETRY_S", 0.001)
    dead = Process(tmp_path, Database(), Random(1), family=Family.DELTAS)
    dead.buffer.put(Batch(Family.DELTAS, {"trades": [trade("t")] * 20}, {}, {}, 1), 1)
    await dead.spooling.turn()
    storage, heir = Storage(10), Process(tmp_path, Database(), Random(2), family=Family.DELTAS)
    storage.see(11)
    asked = list[Family]()

    def holds(family: Family) -> bool:
        asked.append(family)
        if len(asked) == 3:
            assert heir.database.batches == []
            storage.see(1)
        return storage.holds(family)

    whose = heir.heir()
    whose.holds = holds
    async with asyncio.timeout(60):
        await Legacy(whose, heir.spool, heir.spool.inherited[0]).commit()
    assert asked == [Family.DELTAS] * 3
    assert [sealed.rows for _, sealed in heir.database.batches] == [20]
