"""The archiver against real PostgreSQL, into a folder and into a real S3 server."""

import asyncio
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from moto.server import ThreadedMotoServer

from libs.archive.keys import parse_key
from libs.archive.manifest import decode_manifest
from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.marketdata.units import SECOND
from libs.runtime.clock import ManualClock, SystemClock
from libs.runtime.health import HealthState
from libs.runtime.secret import Secret
from libs.runtime.service import Runtime
from libs.store.leases import Lease
from libs.store.pool import Pool, Target, connect, open_pool
from libs.telemetry.metrics import Metrics
from services.archiver.export import export_window
from services.archiver.settings import ArchiverSettings, S3Settings, storage_options
from services.archiver.tasks import Archiver

WIDTH = 10 * SECOND


@pytest.fixture
async def pool(production_db: Target) -> AsyncIterator[Pool]:
    async with open_pool(production_db) as opened:
        yield opened


class Production:
    """Merges deltas as the deduplicator would: rows carry the number of their transaction."""

    def __init__(self, target: Target, now: int) -> None:
        self._target = target
        self._merge_no = 0
        self.start = now - now % WIDTH - 60 * SECOND

    async def merge(self, *moments: int, ticker: str = "A") -> None:
        """Merge one delta at each moment (microseconds after `start`), in one transaction."""
        self._merge_no += 1
        async with connect(self._target) as conn, conn.transaction():
            await conn.executemany(
                "INSERT INTO orderbook_deltas (exchange_ts, received_at, size_delta, seq, price, occurrence, sid, side,"
                " connection, ticker, gatherer, merge_no) VALUES ($1, $1, 5, 1, 52000, $2, 1, true, $3, $4, 1, $5)",
                [
                    (self.start + m, i, uuid.UUID(int=1), ticker, self._merge_no)
                    for i, m in enumerate(moments, 1)
                ],
            )
            await conn.execute(
                "INSERT INTO writer_lease (epoch, holder, expires_at, merge_no) VALUES (1, $1, now(), $2)"
                " ON CONFLICT (one) DO UPDATE SET merge_no = excluded.merge_no",
                uuid.UUID(int=2), self._merge_no,
            )  # fmt: skip

    async def listen(self, zone: str, until: int) -> None:
        """Merge a gatherer's claim to have heard everything up to the moment."""
        async with connect(self._target) as conn:
            number = await conn.fetchval(
                "INSERT INTO gatherers (identity, zone) VALUES (gen_random_uuid(), $1) RETURNING gatherer",
                zone,
            )
            await conn.execute(
                "INSERT INTO listen_ranges (received_at, seq_from, seq_to, sent_from, sent_to, margin, sid, row_no,"
                " connection, channel, gatherer, merge_no, lane, batch_no)"
                " VALUES ($1, 1, 2, $1, $1, 0, 1, 1, $2, 'trade', $3, 1, $2, 1)",
                self.start + until, uuid.UUID(int=3), number,
            )  # fmt: skip


class OwnLease(Lease):
    """A lease nobody else wants."""

    async def renew(self) -> bool:
        return True


async def no_fence() -> None:
    return


def archiver(pool: Pool, store: ObjectStore, now: int, **settings: Any) -> Archiver:
    own = ArchiverSettings(
        root="unused", window_s=10, close_after_s=3600, tables=(ORDERBOOK_DELTAS.name,), **settings
    )
    clock, metrics, lease = ManualClock(now), Metrics(""), OwnLease(pool, "x", uuid.uuid4(), 9.0)
    runtime = Runtime(clock, asyncio.Event(), HealthState("archiver", "", clock, metrics), metrics)
    return Archiver(own, pool, store, runtime, lease)


async def manifests(pool: Pool) -> list[tuple[int, int, int, int]]:
    rows = await pool.fetch(
        "SELECT supplement, rows, merge_from, merge_to FROM archive_manifests ORDER BY window_from, supplement"
    )
    return [tuple(row) for row in rows]


def rows_of(store: ObjectStore, tmp_path: Path, key: str) -> list[tuple[str, int, int]]:
    file = tmp_path / "read.parquet"
    file.write_bytes(store.get(key))
    table = pyarrow.parquet.read_table(file)
    return [(r["ticker"], r["exchange_ts"], r["merge_no"]) for r in table.to_pylist()]


async def test_a_window_closes_when_every_gatherer_listened_past_its_end(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """One gatherer behind keeps it open; a quarantined one does not; the object holds the rows in key order."""
    now = SystemClock().now()
    production, store = Production(production_db, now), ObjectStore(str(tmp_path / "archive"))
    await production.merge(3, 1, ticker="B")
    await production.merge(2, 11 * SECOND, ticker="A")
    await production.listen("a", WIDTH + 1)
    await production.listen("b", WIDTH - 1)
    work = archiver(pool, store, now)
    assert await work.export_once() == 0
    await pool.execute("UPDATE gatherers SET status = 'quarantined' WHERE zone = 'b'")
    assert await work.export_once() == 1
    (key,) = [k for k in store.names() if k.endswith(".parquet")]
    start = production.start
    assert rows_of(store, tmp_path, key) == [
        ("A", start + 2, 2),
        ("B", start + 1, 1),
        ("B", start + 3, 1),
    ]
    named = parse_key(key)
    assert (named.window.start, named.window.end, named.supplement) == (start, start + WIDTH, 0)
    manifest = decode_manifest(store.get(named.manifest))
    assert (manifest.rows, manifest.merge_from, manifest.merge_to) == (3, 0, 2)
    assert manifest.sha256 == store.sha256(key)
    assert await manifests(pool) == [(0, 3, 0, 2)]


async def test_late_rows_become_a_numbered_supplement(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """The first object is never rewritten; the supplement holds exactly the rows merged after it."""
    now = SystemClock().now()
    production, store = Production(production_db, now), ObjectStore(str(tmp_path / "archive"))
    await production.merge(1, 2)
    assert await archiver(pool, store, now).export_once(closing=True) == 1
    (first,) = [k for k in store.names() if k.endswith(".parquet")]
    before = store.sha256(first)
    await production.merge(5)
    await production.merge(6, 25 * SECOND)
    assert await archiver(pool, store, now).export_once() == 1
    assert store.sha256(first) == before
    supplement = first.replace(".parquet", "-s1.parquet")
    assert [m for _, _, m in rows_of(store, tmp_path, supplement)] == [2, 3]
    assert await manifests(pool) == [(0, 2, 0, 1), (1, 2, 1, 3)]
    assert await archiver(pool, store, now).export_once(closing=True) == 1
    assert await archiver(pool, store, now).export_once(closing=True) == 0
    stored = await pool.fetchval("SELECT count(*) FROM orderbook_deltas")
    assert sum(rows for _, rows, _, _ in await manifests(pool)) == stored == 5


async def test_an_old_window_closes_without_its_gatherers(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """A gatherer that is away for long does not hold the archive up."""
    now = SystemClock().now()
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    await production.merge(1)
    await production.listen("a", 0)
    assert await archiver(pool, store, now).export_once() == 0
    assert await archiver(pool, store, now + 3600 * SECOND).export_once() == 1


async def test_a_window_stays_pending_while_the_store_refuses(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """Nothing is recorded for what could not be put; the next attempt exports the same rows."""
    now = SystemClock().now()
    production = Production(production_db, now)
    await production.merge(1, 2)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(ArchiveError):
        await archiver(pool, ObjectStore(str(blocked)), now).export_once(closing=True)
    assert await manifests(pool) == []
    assert (
        await archiver(pool, ObjectStore(str(tmp_path / "ok")), now).export_once(closing=True) == 1
    )
    assert await manifests(pool) == [(0, 2, 0, 1)]


async def test_a_re_export_is_byte_identical(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """The same window, exported again after its manifest was taken back, is the same bytes."""
    now = SystemClock().now()
    production = Production(production_db, now)
    await production.merge(*range(1, 200), ticker="B")
    await production.merge(*range(1, 200), ticker="A")
    one, two = ObjectStore(str(tmp_path / "one")), ObjectStore(str(tmp_path / "two"))
    await archiver(pool, one, now).export_once(closing=True)
    (key,) = [k for k in one.names() if k.endswith(".parquet")]
    await pool.execute("DELETE FROM archive_manifests")
    window = parse_key(key).window
    assert await export_window(pool, two, ORDERBOOK_DELTAS, window, no_fence) is not None
    assert one.get(key) == two.get(key)


@pytest.fixture
def s3() -> Iterator[S3Settings]:
    """A real S3 server on loopback with one bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = urllib.request.Request(f"http://{host}:{port}/archive", method="PUT")
    urllib.request.urlopen(bucket, timeout=10).close()
    yield S3Settings(f"http://{host}:{port}", "us-east-1", Secret("key"), Secret("secret"))
    server.stop()


async def test_objects_go_to_s3_by_configuration(
    production_db: Target, pool: Pool, tmp_path: Path, s3: S3Settings
) -> None:
    """The same archive in a bucket: put, read back, listed, verified."""
    now = SystemClock().now()
    production = Production(production_db, now)
    await production.merge(1, 2, 3)
    store = ObjectStore("s3://archive/kalshi", storage_options(s3))
    work = archiver(pool, store, now)
    assert await work.export_once(closing=True) == 1
    keys = await asyncio.to_thread(lambda: list(store.names()))
    (key,) = [k for k in keys if k.endswith(".parquet")]
    assert parse_key(key).table == "orderbook_deltas"
    data = await asyncio.to_thread(store.get, key)
    assert len(data) == (await pool.fetchval("SELECT bytes FROM archive_manifests"))
    text = work._runtime.metrics.exposition()[0].decode()
    counted = 'kalshi_data_archive_bytes_total{table="orderbook_deltas"} '
    assert f"{counted}{float(len(data))}" in text
