"""A disk that answers nothing, and a spool's directory that somebody else still holds."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast
from uuid import UUID

import pytest

from libs.flow.batch import Batch, Limits, Row
from libs.marketdata.tables import Family
from libs.runtime.clock import ManualClock, SystemClock
from libs.runtime.service import Runtime
from libs.store.lanes import LaneWriter
from libs.store.pool import Pool
from libs.store.spool import Spool, SpoolLimits
from libs.store.spool_run import SpoolRun
from libs.telemetry.metrics import Metrics
from services.connector import disk as disks
from services.connector import inherited
from services.connector import spools as spoolses
from services.connector.buffer import Buffer
from services.connector.disk import Disk
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline
from services.connector.spools import Spools
from services.connector.storage import Storage
from tests.unit.connector.spool_world import Connections, Database, Lane, Process
from tests.unit.connector.test_pipeline import trade
from tests.unit.connector.test_settings import SETTINGS


async def test_a_piece_that_hangs_holds_nobody_and_the_next_waits_for_it() -> None:
    """Told after a while, then at once; what comes behind it is done when it has returned, and not before."""
    disk, gate, done = Disk(), threading.Event(), list[str]()

    def hang() -> None:
        gate.wait()
        done.append("hung")

    with pytest.raises(TimeoutError, match="has not answered"):
        await disk.do(hang, hangs_s=0.01)
    assert disk.hangs
    with pytest.raises(TimeoutError, match="does not answer"):
        await disk.do(lambda: done.append("never"))
    patient = asyncio.ensure_future(disk.do(lambda: done.append("patient"), hangs_s=None))
    await asyncio.sleep(0)
    assert done == []
    gate.set()
    async with asyncio.timeout(60):
        await patient
        await disk.do(lambda: done.append("next"))
    assert done == ["hung", "patient", "next"]
    assert not disk.hangs


async def test_an_error_of_the_work_is_its_own() -> None:
    """A time-out of the disk itself too: it has returned, so nothing hangs."""
    disk = Disk()

    def fail() -> None:
        raise TimeoutError("of a file server")

    with pytest.raises(TimeoutError, match="of a file server"):
        await disk.do(fail)
    assert not disk.hangs


def put(process: Process, *numbers: int) -> None:
    for number in numbers:
        rows: dict[str, list[Row]] = {"trades": [trade(f"{number}-{n}") for n in range(4)]}
        process.buffer.put(Batch(Family.TRADES, rows, {}, {}, number), process.clock.now())


async def test_a_hanging_disk_does_not_hold_the_end_and_nothing_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """keep_all() returns and it is said; what the hung write has done in the end is found, so no batch is there twice."""
    monkeypatch.setattr(disks.Disk.do, "__kwdefaults__", {"hangs_s": 0.01})
    gate, database = threading.Event(), Database()
    append = SpoolRun.append
    clock = ManualClock(1_000_000)
    process = Process(tmp_path, database, Random(1), clock=clock)

    def slow(*args: Any, **named: Any) -> None:
        gate.wait()
        append(*args, **named)

    monkeypatch.setattr(SpoolRun, "append", slow)
    put(process, 1, 2, 3)
    async with asyncio.timeout(60):
        await process.spooling.turn()
        assert process.spooling.fault == "spool_hangs"
        await process.spooling.keep_all()
        assert (process.buffer.spooled_to, process.buffer.rows) == (0, 12)
    monkeypatch.setattr(SpoolRun, "append", append)
    monkeypatch.setattr(disks.Disk.do, "__kwdefaults__", {"hangs_s": 5.0})
    gate.set()
    async with asyncio.timeout(60):
        await process.spooling.disk.do(lambda: None, hangs_s=None)
        put(process, 4)
        clock.advance(2.0)
        process.buffer.is_spooling = True
        await process.spooling.turn()
        assert (process.buffer.spooled_to, process.buffer.rows) == (4, 0)
        while await process.write_once():
            pass
        await process.spooling.turn()
    assert [sealed.rows for _, sealed in database.batches] == [4, 4, 4, 4]
    assert process.gaps == []


@asynccontextmanager
async def running(
    state: Path, database: Database, storage: Storage | None = None
) -> AsyncIterator[tuple[Spools, asyncio.Event]]:
    """The spool of a process as its service puts it together, over a database in memory."""
    clock, metrics, rng = SystemClock(), Metrics("a"), Random(7)
    settings = replace(
        SETTINGS, connector=replace(SETTINGS.connector, state_dir=str(state), shard="s")
    )
    outlets = Outlets(dict.fromkeys(Family, Limits(100, 1 << 30, 1000)), 1 << 20)

    def lane_of(_: Family) -> LaneWriter:
        return cast(LaneWriter, Lane(database, rng))

    pipelines = {
        f: Pipeline(f, outlets, Buffer(f, 100), lane_of(f), clock, metrics) for f in Family
    }
    runtime = Runtime(clock, asyncio.Event(), cast(Any, None), metrics)
    ended = asyncio.Event()
    made = Spools(
        settings, runtime, UUID(int=9), pipelines, lane_of=lane_of, write_gap=lambda _: None,
        pool=cast(Pool, Connections(database)), storage=storage or Storage(0),
    )  # fmt: skip
    async with made as spools, asyncio.TaskGroup() as group:
        for _, work in spools.tasks(ended):
            group.create_task(work)
        writer = group.create_task(pipelines[Family.REST].run())
        yield spools, ended
        pipelines[Family.REST].finish()
        await writer
        ended.set()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if holds():
                return
            await asyncio.sleep(0.001)


async def test_an_end_waits_for_the_first_look_at_the_databases_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier process left is then committed: a pod's disk goes with it."""
    monkeypatch.setattr(inherited, "RETRY_S", 0.001)
    database, storage = Database(), Storage(10)
    dead = Process(tmp_path / "spool" / "s" / "deltas", database, Random(1), family=Family.DELTAS)
    dead.buffer.put(Batch(Family.DELTAS, {"trades": [trade("t")] * 20}, {}, {}, 1), 1)
    await dead.spooling.turn()
    assert dead.spool.run is not None
    dead.spool.run.close()
    async with running(tmp_path, database, storage) as (spools, _):
        spools.adopt([], "identity")
        await until(lambda: spools._inheriting is not None and not spools.is_settled.is_set())
        settling = asyncio.ensure_future(spools.settle(60.0))
        await asyncio.wait([settling], timeout=0.05)
        assert not settling.done()
        storage.see(1)
        async with asyncio.timeout(60):
            await settling
        assert spools.is_settled.is_set()
        assert [sealed.rows for _, sealed in database.batches] == [20]


async def test_a_directory_that_somebody_else_holds_is_taken_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said in /health until then; and what is found in it is committed as if it had been there at the start."""
    monkeypatch.setattr(spoolses, "OPEN_AGAIN_S", 0.01)
    database, directory = Database(), tmp_path / "spool" / "s"
    dead = Process(directory / "trades", database, Random(1))
    put(dead, 1, 2, 3)
    await dead.spooling.turn()
    assert dead.spool.run is not None
    dead.spool.run.close()
    other = Spool(directory, SpoolLimits(1 << 30, 0, "never"))
    other.open()
    async with running(tmp_path, database) as (spools, _):
        assert spools.adopt([], "identity") == []
        assert spools.fault == "another process holds it"
        assert spools.describe() == {}
        await until(spools.is_settled.is_set)
        assert database.batches == []
        other.close()
        await until(lambda: spools.fault == "" and len(database.batches) == 3)
        await until(spools.is_settled.is_set)
        assert set(spools.describe()) == {family.value for family in Family}
    assert not list(directory.rglob("*.seg"))
