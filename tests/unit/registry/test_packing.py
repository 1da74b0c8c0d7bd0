"""The packer's own part: what it reports, and that a stop does not wait for a conversion."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from libs.runtime.clock import ManualClock
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime
from libs.store.columnstore import Converted
from libs.store.errors import StoreUnavailable
from libs.store.partition_plan import Partition
from libs.store.pool import Pool
from libs.telemetry.metrics import Metrics
from services.registry import packing
from services.registry.packing import Packer

CHUNK = Partition("trades", "chunk_1", 0, 10)


@pytest.fixture
def packer(monkeypatch: pytest.MonkeyPatch) -> Packer:
    """A packer over nothing."""

    @asynccontextmanager
    async def lend(_: Pool) -> AsyncIterator[None]:
        yield None

    monkeypatch.setattr(packing, "lend", lend)
    clock, metrics = ManualClock(7_000_000), Metrics()
    runtime = Runtime(clock, asyncio.Event(), HealthState("registry", "", clock, metrics), metrics)
    return Packer(runtime, cast(Pool, None), 3.0)


async def test_what_was_packed_and_what_waits_is_said(
    packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of all turns together, and of the last turn what could not be packed and why."""

    async def convert(_: object, now: int, *, after: int) -> Converted:
        assert (now, after) == (7_000_000, 3_000_000)
        return Converted((CHUNK,), ((CHUNK, "a batch is not acknowledged"),))

    monkeypatch.setattr(packing, "convert_acknowledged", convert)
    await packer.pack_once()
    await packer.pack_once()
    said = {"packed": 2, "waiting": 1, "last_reason": "a batch is not acknowledged"}
    assert packer.facts() == said


async def test_a_stop_breaks_a_conversion_off(
    packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion may take minutes; the process ends at once."""
    begun, broken = asyncio.Event(), asyncio.Event()

    async def convert(_: object, now: int, *, after: int) -> Converted:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            broken.set()
        return Converted()

    monkeypatch.setattr(packing, "convert_acknowledged", convert)
    async with asyncio.timeout(60):
        async with asyncio.TaskGroup() as group:
            group.create_task(packer.pack_once())
            await begun.wait()
            packer._runtime.stop.set()
    assert broken.is_set()
    assert packer.packed == 0


async def test_a_database_that_is_away_is_told_on(
    packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop around it repeats."""

    async def convert(_: object, now: int, *, after: int) -> Converted:
        raise StoreUnavailable("away")

    monkeypatch.setattr(packing, "convert_acknowledged", convert)
    with pytest.raises(StoreUnavailable):
        await packer.pack_once()
