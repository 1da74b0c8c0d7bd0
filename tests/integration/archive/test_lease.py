"""One archiver at a time, for as long as an export takes; an end without production is an end in order."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.leasing import LeaseLost
from libs.runtime.secret import Secret
from libs.runtime.sections import StoreSettings
from libs.runtime.service import Runtime, orderly
from libs.store import leases
from libs.store.leases import Lease
from libs.store.pool import Pool, Target, connect, open_pool
from libs.telemetry.metrics import Metrics
from services.archiver.service import run
from services.archiver.settings import ArchiverSettings, Settings
from services.archiver.tasks import Archiver

TTL_S = 0.6
MERGED = 1_790_000_000_000_000
"""When the one row below was traded: its window has long been closed."""


def settings_of(target: Target, root: Path) -> Settings:
    """The archiver's own role, so that what it may not do shows here."""
    store = StoreSettings(
        database=target.database, user="kd_archiver", password=Secret(target.password), host=target.host,
        port=target.port, connect_timeout_s=1.0,
    )  # fmt: skip
    own = ArchiverSettings(
        root=str(root), window_s=10, close_after_s=1, poll_s=0.05, lease_s=TTL_S,
        tables=(ORDERBOOK_DELTAS.name,),
    )  # fmt: skip
    return Settings(archiver=own, production=store)


class Running:
    """One archiver as a process would run it."""

    def __init__(self, settings: Settings) -> None:
        clock, metrics = SystemClock(), Metrics()
        health = HealthState("archiver", "", clock, metrics)
        self.runtime = Runtime(clock, asyncio.Event(), health, metrics)
        work = orderly(run(settings, self.runtime), self.runtime.stop)
        self.task = asyncio.create_task(work, name="archiver")

    @property
    def health(self) -> dict[str, Any]:
        return self.runtime.health.document()

    async def stop(self) -> None:
        """Stop in order; raises what the process would end with."""
        self.runtime.stop.set()
        async with asyncio.timeout(60):
            await self.task


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    archiver = Running(settings)
    try:
        yield archiver
    finally:
        archiver.task.cancel()
        await asyncio.wait([archiver.task])


async def until(holds: Callable[[], Awaitable[Any] | Any]) -> None:
    async with asyncio.timeout(60):
        while True:
            found = holds()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def relayed(target: Target) -> AsyncIterator[tuple[Target, Callable[[], None]]]:
    """The database behind a relay, and what cuts it off for good."""
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            # Cut off, which is what the relay is for.
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.host, target.port)
        writers.extend((writer, back))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)

    def cut() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()

    try:
        yield (
            replace(target, host="127.0.0.1", port=server.sockets[0].getsockname()[1]),
            cut,
        )
    finally:
        cut()


async def merge_one(target: Target, merge_no: int) -> None:
    """One delta in production, merged under this number."""
    async with connect(target) as conn, conn.transaction():
        await conn.execute(
            "INSERT INTO orderbook_deltas (exchange_ts, received_at, size_delta, seq, price, occurrence, sid, side,"
            " connection, ticker, gatherer, merge_no) VALUES ($1, $1, 5, 1, 52000, $4, 1, true, $3, 'A', 1, $2)",
            MERGED, merge_no, uuid.UUID(int=1), merge_no,
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO writer_lease (epoch, holder, expires_at, merge_no) VALUES (1, $1, now(), $2)"
            " ON CONFLICT (one) DO UPDATE SET merge_no = excluded.merge_no",
            uuid.UUID(int=2), merge_no,
        )  # fmt: skip


async def manifests(pool: Pool) -> int:
    return int(await pool.fetchval("SELECT count(*) FROM archive_manifests"))


@pytest.fixture
async def pool(production_db: Target) -> AsyncIterator[Pool]:
    async with open_pool(production_db) as opened:
        yield opened


class Slow:
    """An object store that takes as long as a test wants; `begun` counts the objects that were begun."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.begun = 0


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    state, put = Slow(), ObjectStore.put

    def wait_and_put(self: ObjectStore, *arguments: Any) -> None:
        state.begun += 1
        assert state.go_on.wait(120)
        put(self, *arguments)

    monkeypatch.setattr(ObjectStore, "put", wait_and_put)
    yield state
    state.go_on.set()


async def take_away(pool: Pool) -> None:
    """Another archiver has the lease from now on."""
    await pool.execute(
        "UPDATE leases SET holder = gen_random_uuid(), epoch = epoch + 1,"
        " expires_at = clock_timestamp() + interval '1 hour'"
    )


async def until_renewed(pool: Pool) -> None:
    before = await pool.fetchval("SELECT expires_at FROM leases")
    query = "SELECT expires_at > $1 AND expires_at > clock_timestamp() FROM leases"
    await until(lambda: pool.fetchval(query, before))


async def test_a_stop_without_production_is_an_end_in_order(tmp_path: Path) -> None:
    """Production was never there: the archiver waits for it, and ends without an error when it is told to."""
    nowhere = Target("127.0.0.1", 1, "none", "none", "")
    async with running(settings_of(nowhere, tmp_path)) as archiver:
        await asyncio.sleep(0.05)
        assert not archiver.task.done()
        await archiver.stop()


async def test_a_stop_while_production_is_away_is_an_end_in_order(
    production_db: Target, tmp_path: Path
) -> None:
    """Production went away while windows were pending: no error, nothing half done, the lease is left to its end."""
    async with (
        relayed(production_db) as (behind, cut),
        running(settings_of(behind, tmp_path)) as archiver,
    ):
        await until(lambda: archiver.health["ready"])
        await merge_one(production_db, 1)
        await until(lambda: archiver.health.get("objects") == 1)
        cut()
        await until(lambda: not archiver.health["ready"])
        await merge_one(production_db, 2)
        await archiver.stop()
    async with connect(production_db) as conn:
        assert await conn.fetchval("SELECT count(*) FROM archive_manifests") == 1
        assert await conn.fetchval("SELECT expires_at <> '-infinity' FROM leases")


async def test_a_second_archiver_waits_and_takes_over(
    production_db: Target, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what it waits for, exports nothing, and goes on where the first one stopped."""
    # The first one gives it up; that it loses it, on whatever machine, is not what this is about.
    monkeypatch.setattr(leases, "POLL_S_MAX", 0.1)
    settings = settings_of(production_db, tmp_path)
    settings = replace(settings, archiver=replace(settings.archiver, lease_s=60.0))
    async with running(settings) as first:
        await until(lambda: first.health["ready"])
        async with running(settings) as second:
            await until(lambda: second.health["reason"] == "waiting for the lease")
            await merge_one(production_db, 1)
            await until(lambda: first.health.get("objects") == 1)
            assert not second.health["ready"]
            await first.stop()
            await until(lambda: second.health["ready"])
            await merge_one(production_db, 2)
            await until(lambda: second.health.get("objects") == 1)
            await second.stop()
    rows = await pool.fetch("SELECT supplement, rows FROM archive_manifests ORDER BY supplement")
    assert [tuple(row) for row in rows] == [(0, 1), (1, 1)]


async def test_the_lease_of_a_dead_archiver_runs_out(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """Nobody gave it up: the next archiver takes it once it has expired."""
    dead = Lease(pool, "archiver", uuid.uuid4(), 1.0)
    assert await dead.take_once()
    async with running(settings_of(production_db, tmp_path)) as archiver:
        await until(lambda: archiver.health["reason"] == "waiting for the lease")
        await until(lambda: archiver.health["ready"])
        assert not await dead.renew()
        await archiver.stop()


async def test_the_lease_is_kept_while_an_export_takes_long(
    production_db: Target, pool: Pool, tmp_path: Path, slow: Slow
) -> None:
    """Longer than several leases, and after stop too: nobody else comes in before the object is recorded."""
    await merge_one(production_db, 1)
    async with running(settings_of(production_db, tmp_path)) as archiver:
        await until(lambda: slow.begun)
        for is_stopping in (False, True):
            if is_stopping:
                archiver.runtime.stop.set()
            for _ in range(3):
                await until_renewed(pool)
        assert await manifests(pool) == 0
        slow.go_on.set()
        await archiver.stop()
    assert await manifests(pool) == 1
    assert await pool.fetchval("SELECT expires_at = '-infinity' FROM leases")


async def test_an_archiver_that_lost_its_lease_ends_in_the_middle_of_an_export(
    production_db: Target, pool: Pool, tmp_path: Path, slow: Slow
) -> None:
    """The process ends and no manifest is written; the lease stays its new holder's."""
    await merge_one(production_db, 1)
    async with running(settings_of(production_db, tmp_path)) as archiver:
        await until(lambda: slow.begun)
        await take_away(pool)
        async with asyncio.timeout(60):
            with pytest.raises(LeaseLost):
                await archiver.task
        slow.go_on.set()
    assert await manifests(pool) == 0
    assert await pool.fetchval("SELECT expires_at > clock_timestamp() FROM leases")


async def test_without_the_lease_no_object_is_put(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """It might replace the object that the new holder wrote under the same name."""
    await merge_one(production_db, 1)
    lease = Lease(pool, "archiver", uuid.uuid4(), 60.0)
    assert await lease.take_once()
    await take_away(pool)
    clock, metrics = SystemClock(), Metrics()
    runtime = Runtime(clock, asyncio.Event(), HealthState("archiver", "", clock, metrics), metrics)
    store = ObjectStore(str(tmp_path / "archive"))
    own = settings_of(production_db, tmp_path).archiver
    with pytest.raises(LeaseLost):
        await Archiver(own, pool, store, runtime, lease).export_once()
    assert list(store.names()) == []
    assert await manifests(pool) == 0
