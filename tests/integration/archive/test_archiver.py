"""The archiver against real PostgreSQL, into a folder and into a real S3 server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs.archive.errors import ArchiveError
from libs.archive.keys import parse_key
from libs.archive.manifest import decode_manifest
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.marketdata.units import DAY, HOUR, SECOND
from libs.runtime.clock import SystemClock
from libs.store.partition_drop import drop_partitions_archived
from libs.store.partition_plan import Horizon
from libs.store.partitions import ensure_partitions
from libs.store.pool import Pool, Target, open_pool
from services.archiver.export import export_window
from services.archiver.settings import storage_options
from tests.integration.archive.world import (
    WIDTH,
    Production,
    S3Server,
    archiver,
    manifests,
    own_lease,
    rows_of,
)


@pytest.fixture
async def pool(production_db: Target) -> AsyncIterator[Pool]:
    async with open_pool(production_db) as opened:
        yield opened


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
    assert await archiver(pool, store, now + 3700 * SECOND).export_once() == 2
    assert store.sha256(first) == before
    supplement = first.replace("-m1.parquet", "-s1-m3.parquet")
    assert [m for _, _, m in rows_of(store, tmp_path, supplement)] == [2, 3]
    assert await manifests(pool) == [(0, 2, 0, 1), (1, 2, 1, 3), (0, 1, 0, 3)]
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
    """The same window is the same bytes, also when its rows came in another order."""
    now = SystemClock().now()
    production = Production(production_db, now)
    await production.merge(*range(1, 200), ticker="B")
    await production.merge(*range(1, 200), ticker="A")
    one, two = ObjectStore(str(tmp_path / "one")), ObjectStore(str(tmp_path / "two"))
    await archiver(pool, one, now).export_once(closing=True)
    (key,) = [k for k in one.names() if k.endswith(".parquet")]
    await pool.execute("DELETE FROM archive_manifests")
    await pool.execute(
        "WITH gone AS (DELETE FROM orderbook_deltas RETURNING *)"
        " INSERT INTO orderbook_deltas SELECT * FROM gone ORDER BY hashint8(exchange_ts)"
    )
    window = parse_key(key).window
    assert await export_window(pool, two, ORDERBOOK_DELTAS, window, own_lease(pool)) is not None
    assert one.get(key) == two.get(key)


@pytest.fixture
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


async def test_objects_go_to_s3_by_configuration(
    production_db: Target, pool: Pool, s3: S3Server
) -> None:
    """The same archive in a bucket: put, read back, listed, verified."""
    now = SystemClock().now()
    production = Production(production_db, now)
    await production.merge(1, 2, 3)
    store = ObjectStore("s3://archive/kalshi", storage_options(s3.settings))
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


async def test_the_archiver_outlives_s3(production_db: Target, pool: Pool, s3: S3Server) -> None:
    """While S3 is away nothing is recorded and the process goes on; when it is back, so does the archive."""
    now = SystemClock().now()
    production = Production(production_db, now)
    # Both windows in one partition, whatever the hour.
    production.start -= production.start % HOUR
    await production.merge(1, 2)
    async with pool.acquire() as conn:
        await ensure_partitions(conn, "production", production.start, Horizon(0, 0))
    once = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 2}}
    store = ObjectStore("s3://archive/kalshi", storage_options(s3.settings) | once)
    work = archiver(pool, store, now)
    assert await work.export_once(closing=True) == 1
    s3.stop()
    await production.merge(15 * SECOND)
    await work._round(closing=True)
    assert work._runtime.health.ready is False
    assert "archive/kalshi" in str(work._runtime.health.document()["error"])
    assert await kept_by_retention(pool, production.start) == "1 rows lie in no archived window"
    with pytest.raises(ArchiveError):
        await asyncio.to_thread(lambda: list(store.names()))
    assert await manifests(pool) == [(0, 2, 0, 1)]
    assert await pool.fetchval("SELECT count(*) FROM archive_pending") == 1
    s3.start()
    await work._round(closing=True)
    assert work._runtime.health.document()["error"] == ""
    assert await manifests(pool) == [(0, 2, 0, 1), (0, 1, 0, 2)]
    assert await kept_by_retention(pool, production.start) is None


async def kept_by_retention(pool: Pool, moment: int) -> str | None:
    """Let retention try the partition of this moment; return why it was kept, None when it went."""
    async with pool.acquire() as conn:
        tried = await drop_partitions_archived(conn, moment - moment % HOUR + HOUR)
    for partition, why in tried.kept:
        if partition.table == "orderbook_deltas" and partition.start <= moment < partition.end:
            return why
    assert any(p.table == "orderbook_deltas" and p.start <= moment < p.end for p in tried.dropped)
    return None


async def test_versions_of_markets_are_archived_by_days(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """One object a UTC day, whatever the width of the other tables' windows."""
    now = SystemClock().now()
    # Both days closed long ago, also just after midnight.
    day = now - now % DAY - 3 * DAY
    for number, moment in enumerate((day, day + 5 * HOUR, day + DAY - 1, day + DAY)):
        await pool.execute(
            "INSERT INTO market_versions VALUES (1, $1, $2, 'market', 'A', '{}', 1, 1)",
            moment,
            number,
        )
    await pool.execute("UPDATE writer_lease SET merge_no = 1")
    store = ObjectStore(str(tmp_path))
    work = archiver(pool, store, now)
    work._settings = replace(work._settings, tables=("market_versions",))
    assert await work.export_once() == 2
    rows = await pool.fetch(
        "SELECT window_from, window_to, rows FROM archive_manifests ORDER BY window_from"
    )
    assert [tuple(r) for r in rows] == [(day, day + DAY, 3), (day + DAY, day + 2 * DAY, 1)]
