"""A bucket shows one history: what production does not know is set aside before a window gets another object."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs.archive.catalogue import Catalogue, read_catalogue
from libs.archive.errors import ArchiveError
from libs.archive.keys import MANIFEST, Window
from libs.archive.manifest import Superseded, decode_manifest, decode_superseded
from libs.archive.objects import ObjectStore
from libs.archive.superseding import set_aside, unrecorded
from libs.archive.verification import Checked, verify_objects
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.runtime.clock import SystemClock
from libs.store import windows
from libs.store.pool import Pool, Target, connect, open_pool
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


@pytest.fixture
def now() -> int:
    return SystemClock().now()


def crash(target: Target, root: Path, window: Window) -> int:
    """Export in a process of its own that dies between put and record; return how it ended."""
    words = [
        target.host, target.port, target.user, target.password, target.database,
        root, window.start, window.end,
    ]  # fmt: skip
    program = [sys.executable, "-m", "tests.integration.archive.crashing"]
    return subprocess.run([*program, *map(str, words)], check=False, timeout=60).returncode


def notes(store: ObjectStore) -> list[Superseded]:
    names = [name for name in store.names() if name.endswith(".superseded.json")]
    return [decode_superseded(store.get(name)) for name in names]


def verified(store: ObjectStore) -> tuple[Catalogue, list[Checked]]:
    catalogue = read_catalogue(store)
    return catalogue, list(verify_objects(store, catalogue))


def archived(store: ObjectStore, tmp_path: Path) -> list[tuple[str, int, int]]:
    """The rows of every object that a reader of `*.parquet` meets."""
    keys = [name for name in store.names() if name.endswith(".parquet")]
    return [row for key in keys for row in rows_of(store, tmp_path, key)]


async def test_a_crash_between_put_and_record_leaves_one_history(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """With newer rows the lost attempt is set aside, whole, with an event, a metric and a note."""
    production, root = Production(production_db, now), tmp_path / "archive"
    window = Window(production.start, production.start + WIDTH)
    store = ObjectStore(str(root))
    await production.merge(1, 2, 3)
    await windows.note_pending(pool, ORDERBOOK_DELTAS, WIDTH)
    assert await asyncio.to_thread(crash, production_db, root, window) == -signal.SIGKILL
    assert await manifests(pool) == []
    (left,) = [name for name in store.names() if name.endswith(".parquet")]
    before = store.get(left)
    again = ObjectStore(str(tmp_path / "again"))
    await export_window(pool, again, ORDERBOOK_DELTAS, window, own_lease(pool))
    assert again.get(left) == before, "another process makes other bytes of the same rows"
    await pool.execute("DELETE FROM archive_manifests")
    await production.merge(10, 11)
    work = archiver(pool, store, now)
    assert await work.export_once(closing=True) == 1
    assert await manifests(pool) == [(0, 5, 0, 2)]
    assert len(archived(store, tmp_path)) == 5
    (note,) = notes(store)
    assert note.was == left and note.object is not None and note.manifest is not None
    assert (note.manifest.rows, note.manifest.merge_to) == (3, 1)
    assert store.get(note.object) == before
    events = await pool.fetch("SELECT kind, detail FROM operational_events")
    assert [tuple(row) for row in events] == [("archive_superseded", left)]
    text = work._runtime.metrics.exposition()[0].decode()
    assert 'archive_superseded_total{table="orderbook_deltas"} 1.0' in text


async def test_an_object_that_is_the_same_is_only_recorded(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """Nothing was merged since the crash: the object that was put is the one that is about to be put."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path / "archive"))
    await production.merge(1, 2, 3)
    assert await archiver(pool, store, now).export_once(closing=True) == 1
    before = {name: store.get(name) for name in store.names()}
    await pool.execute("DELETE FROM archive_manifests")
    await pool.execute("DELETE FROM archive_progress")
    assert await archiver(pool, store, now).export_once(closing=True) == 1
    assert {name: store.get(name) for name in store.names()} == before
    assert await manifests(pool) == [(0, 3, 0, 1)]
    assert await pool.fetchval("SELECT count(*) FROM operational_events") == 0


async def test_a_production_put_back_to_an_older_copy_leaves_one_history(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """Objects of the lost history are set aside when their windows are exported again, under the same name too."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path / "archive"))
    await production.merge(1, 2)
    await archiver(pool, store, now).export_once(closing=True)
    copy = f"{production_db.database}_copy"
    await pool.close()
    async with connect(replace(production_db, database="postgres")) as conn:
        await conn.execute(f"CREATE DATABASE {copy} TEMPLATE {production_db.database}")
    try:
        async with open_pool(production_db) as lost:
            await production.merge(3, 4, 11 * 1_000_000)
            later = now + 3700 * 1_000_000
            assert await archiver(lost, store, later).export_once() == 2
        await go_on_from_copy(replace(production_db, database=copy), store, tmp_path, now)
    finally:
        async with connect(production_db) as conn:
            await conn.execute(f"DROP DATABASE {copy} WITH (FORCE)")


async def go_on_from_copy(copied: Target, store: ObjectStore, tmp_path: Path, now: int) -> None:
    """The same rows come again from the gatherers, in other transactions, one of them with the number of a lost one."""
    production = Production(copied, now)
    production._merge_no = 1
    await production.merge(4, 3, 5)
    async with open_pool(copied) as pool:
        assert await archiver(pool, store, now + 3700 * 1_000_000).export_once() == 1
        await production.merge(11 * 1_000_000)
        assert await archiver(pool, store, now + 3700 * 1_000_000).export_once() == 1
        assert await manifests(pool) == [(0, 2, 0, 1), (1, 3, 1, 2), (0, 1, 0, 3)]
        found = sorted(row[1] - production.start for row in archived(store, tmp_path))
        assert found == [1, 2, 3, 4, 5, 11 * 1_000_000]
        lost = notes(store)
        assert [note.manifest and (note.manifest.rows, note.manifest.merge_to) for note in lost] == [
            (2, 2), (1, 2),
        ]  # fmt: skip
        for note in lost:
            assert note.object is not None and store.sha256(note.object) == note.sha256
        recorded = {
            row["object"] for row in await pool.fetch("SELECT object FROM archive_manifests")
        }
        named = [decode_manifest(store.get(n)) for n in store.names() if n.endswith(MANIFEST)]
        assert {manifest.object for manifest in named} == recorded


async def test_setting_aside_may_be_interrupted_anywhere(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """After each step the next attempt ends it, and the note still says what the lost manifest said."""
    production = Production(production_db, now)
    await production.merge(1, 2)
    window = Window(production.start, production.start + WIDTH)

    class Interrupted(ObjectStore):
        """Refuses from the n-th change on."""

        left = 0

        def _allow(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise ArchiveError("interrupted")

        def put_small(self, key: str, data: bytes) -> None:
            self._allow()
            super().put_small(key, data)

        def forget(self, key: str) -> None:
            self._allow()
            super().forget(key)

        def move(self, key: str, to: str, sha256: str) -> None:
            self._allow()
            super().move(key, to, sha256)

    for steps in range(4):
        store = Interrupted(str(tmp_path / str(steps)))
        store.left = 99
        await pool.execute("DELETE FROM archive_manifests")
        made = await export_window(pool, store, ORDERBOOK_DELTAS, window, own_lease(pool))
        assert made is not None
        store.left = steps
        (key,) = unrecorded(store, "orderbook_deltas", window, ())
        with pytest.raises(ArchiveError):
            set_aside(store, key)
        store.left = 99
        (key,) = unrecorded(store, "orderbook_deltas", window, ())
        set_aside(store, key)
        assert unrecorded(store, "orderbook_deltas", window, ()) == []
        (note,) = notes(store)
        assert note.manifest == made and note.object is not None
        assert store.sha256(note.object) == made.sha256
        assert len(list(store.names())) == 2


async def test_another_production_does_not_set_the_archive_aside(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """One that has recorded nothing refuses a bucket full of objects, says what to do, and touches none of them."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    await production.merge(*(k * WIDTH for k in range(14)))
    assert await archiver(pool, store, now).export_once(closing=True) == 14
    before = list(store.names())
    await pool.execute("DELETE FROM archive_manifests")
    await pool.execute("DELETE FROM archive_progress")
    await production.merge(1)
    with pytest.raises(ArchiveError, match="archive import"):
        await archiver(pool, store, now).export_once(closing=True)
    assert list(store.names()) == before


async def test_objects_are_set_aside_in_s3_too(
    production_db: Target, pool: Pool, now: int, tmp_path: Path
) -> None:
    """Copied, read back, and only then gone under the old name."""
    server = S3Server()
    try:
        production = Production(production_db, now)
        store = ObjectStore("s3://archive/kalshi", storage_options(server.settings))
        await production.merge(1, 2)
        assert await archiver(pool, store, now).export_once(closing=True) == 1
        await pool.execute("DELETE FROM archive_manifests")
        await production.merge(5)
        assert await archiver(pool, store, now).export_once(closing=True) == 1
        names = await asyncio.to_thread(lambda: sorted(n.rpartition("-")[2] for n in store.names()))
        (note,) = await asyncio.to_thread(notes, store)
        mark = note.sha256[:16]
        assert names == sorted(
            [f"{mark}.superseded", f"{mark}.superseded.json", "m2.manifest.json", "m2.parquet"]
        )
        await production.merge(15_000_000, 35_000_000)
        assert await archiver(pool, store, now).export_once(closing=True) == 2
        catalogue, checked = await asyncio.to_thread(verified, store)
        assert (len(catalogue.manifests), len(catalogue.superseded), catalogue.faults) == (3, 1, [])
        assert [one.faults for one in checked] == [()] * 4
    finally:
        server.stop()
