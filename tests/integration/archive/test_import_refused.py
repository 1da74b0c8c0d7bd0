"""What an import takes and what it refuses: interrupted, repeated, into something that is not empty, from damaged objects."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from libs.archive.keys import MANIFEST
from libs.archive.manifest import decode_manifest, encode_manifest
from libs.archive.objects import ObjectStore
from libs.marketdata.units import DAY, SECOND
from libs.runtime.clock import SystemClock
from libs.store.partitions import count_default_rows
from libs.store.pool import Target, connect, open_pool
from libs.store.restoring import ImportRefused
from services.archiver.command_import import import_archive
from services.archiver.command_show import Output
from services.archiver.settings import ArchiverSettings, Settings
from tests.integration.archive.world import Production, archiver
from tests.integration.deduplicator.world import store_of
from tests.support.postgres import NewDatabase

QUIET = Output(is_json=False)
DOCUMENT = Output(is_json=True)
NOW = SystemClock().now()


@dataclass
class Lost:
    """A production with an archive of four windows, the first with a supplement, and a new one to load it into."""

    old: Target
    new: Target
    root: Path
    start: int

    async def load(
        self, out: Output = QUIET, start: int = 0, store: ObjectStore | None = None
    ) -> int:
        settings = Settings(ArchiverSettings(root=str(self.root)), store_of(self.new))
        return await import_archive(settings, store or ObjectStore(str(self.root)), start, out)


@pytest.fixture
async def lost(new_database: NewDatabase, tmp_path: Path) -> Lost:
    old, root = new_database("production"), tmp_path / "archive"
    production = Production(old, NOW)
    await production.listen("a", 0)
    async with open_pool(old) as pool:
        for moments in ((1, 2, 12 * SECOND), (3, 25 * SECOND, 26 * SECOND, 35 * SECOND)):
            await production.merge(*moments)
            await archiver(pool, ObjectStore(str(root)), NOW).export_once(closing=True)
    return Lost(old, new_database("production"), root, production.start)


async def rows_of(production: Target) -> list[Any]:
    async with connect(production) as conn:
        return [
            tuple(row)
            for row in await conn.fetch("SELECT * FROM orderbook_deltas ORDER BY exchange_ts")
        ]


class Ending(ObjectStore):
    """Away after three objects."""

    left = 3

    def download(self, key: str, target: Path | None) -> str:
        self.left -= 1
        if self.left < 0:
            raise OSError("away")
        return super().download(key, target)


async def test_an_import_may_be_interrupted_and_repeated(
    lost: Lost, capsys: pytest.CaptureFixture[str]
) -> None:
    """A window is there whole or not at all; the next run takes the rest; a third one changes nothing."""
    wanted = await rows_of(lost.old)
    with pytest.raises(OSError, match="away"):
        await lost.load(store=Ending(str(lost.root)))
    assert await rows_of(lost.new) == wanted[:4]
    async with connect(lost.new) as conn:
        await conn.execute("UPDATE writer_lease SET expires_at = '-infinity'")
    assert await lost.load() == 0
    assert await rows_of(lost.new) == wanted
    capsys.readouterr()
    assert await lost.load(DOCUMENT) == 0
    (done,) = msgspec.json.decode(capsys.readouterr().out)["tables"].values()
    assert done == {"loaded": 0, "there": 4, "dropped": 0, "rows": 0}
    assert await rows_of(lost.new) == wanted
    async with connect(lost.new) as conn:
        await conn.execute("DELETE FROM orderbook_deltas WHERE exchange_ts = $1", lost.start + 1)
    with pytest.raises(ImportRefused, match="2 of 3 recorded rows"):
        await lost.load()


async def test_an_import_of_nothing_is_refused(lost: Lost, tmp_path: Path) -> None:
    """A mistyped path: refused before production knows of an import; the right one still goes afterwards."""
    with pytest.raises(ImportRefused, match=r"there is no archive in .*archvie"):
        await lost.load(store=ObjectStore(str(tmp_path / "archvie")))
    async with connect(lost.new) as conn:
        assert await conn.fetchval("SELECT count(*) FROM operational_events") == 0
    assert await lost.load() == 0
    assert await rows_of(lost.new) == await rows_of(lost.old)


async def test_other_rows_in_a_window_stop_the_import(lost: Lost) -> None:
    """It says which table and window, and that window stays as it is; those before it are there."""
    stranger = Production(lost.new, NOW)
    stranger.start = lost.start
    await stranger.merge(29 * SECOND, ticker="X")
    async with connect(lost.new) as conn:
        await conn.execute("UPDATE writer_lease SET merge_no = 0")
    window = f"{lost.start + 20 * SECOND}..{lost.start + 30 * SECOND}"
    with pytest.raises(ImportRefused, match=f"orderbook_deltas has 1 rows in the window {window}"):
        await lost.load()
    assert len(await rows_of(lost.new)) == 5


@pytest.mark.parametrize("number", [0, 5])
async def test_a_production_that_merged_on_its_own_is_refused(lost: Lost, number: int) -> None:
    """Its numbers would be taken for archived ones, whether or not a row of it is in a window."""
    async with connect(lost.new) as conn:
        await conn.execute("UPDATE writer_lease SET merge_no = $1", number)
        await conn.execute("INSERT INTO merges VALUES (1, now(), 0, 0)")
    with pytest.raises(ImportRefused, match="merged on its own"):
        await lost.load()


async def test_a_deduplicator_at_work_is_not_disturbed(lost: Lost) -> None:
    """While somebody holds the writer's lease nothing is imported."""
    async with connect(lost.new) as conn:
        await conn.execute("UPDATE writer_lease SET holder = $1, expires_at = now() + interval '1 h'", uuid4())  # fmt: skip
    with pytest.raises(ImportRefused, match="stop it first"):
        await lost.load()
    assert await rows_of(lost.new) == []


async def test_numbers_that_mean_other_gatherers_are_refused(lost: Lost) -> None:
    """A production that has admitted somebody else under a number of the archive."""
    async with connect(lost.new) as conn:
        await conn.execute("INSERT INTO gatherers (identity, zone) VALUES ($1, 'x')", uuid4())
    with pytest.raises(ImportRefused, match="admitted nobody"):
        await lost.load()
    assert await rows_of(lost.new) == []


async def test_gatherers_and_records_come_back(lost: Lost) -> None:
    """The same identities and manifests; the next gatherer gets a number nobody had, the next merge too."""
    assert await lost.load() == 0
    async with connect(lost.old) as one, connect(lost.new) as other:
        columns = "object, rows, bytes, sha256, merge_from, merge_to, ticker_min, time_max"
        for query in (
            "SELECT gatherer, identity, zone, status FROM gatherers",
            f"SELECT {columns} FROM archive_manifests ORDER BY object",
        ):
            assert await other.fetch(query) == await one.fetch(query)
        number = await other.fetchval("INSERT INTO gatherers (identity, zone) VALUES ($1, 'd') RETURNING gatherer", uuid4())  # fmt: skip
        assert number == 2
        assert await other.fetchval("SELECT merge_no FROM writer_lease") == 2
        looked = await other.fetch("SELECT DISTINCT merge_no FROM archive_progress")
        assert [row["merge_no"] for row in looked] == [2]
        assert not any((await count_default_rows(other, "production")).values())
        kinds = await other.fetch("SELECT kind FROM operational_events ORDER BY at")
        assert [row["kind"] for row in kinds] == ["archive_import_began", "archive_imported"]


async def test_a_damaged_window_is_left_out_and_told(
    lost: Lost, new_database: NewDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others come back; objects whose gatherers no manifest names are left out too."""
    victim = min(lost.root.rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-9] + b"otherwise")
    assert await lost.load(DOCUMENT) == 1
    (fault,) = msgspec.json.decode(capsys.readouterr().out)["faults"]
    assert fault["object"].endswith(victim.name) and fault["field"] == "sha256"
    assert await rows_of(lost.new) == (await rows_of(lost.old))[3:]
    for path in lost.root.rglob(f"*{MANIFEST}"):
        manifest = decode_manifest(path.read_bytes())
        path.write_bytes(encode_manifest(msgspec.structs.replace(manifest, gatherers=())))
    lost.new = new_database("production")
    assert await lost.load(DOCUMENT) == 1
    faults = msgspec.json.decode(capsys.readouterr().out)["faults"]
    assert {fault["field"] for fault in faults} == {"sha256", "gatherers"}
    assert await rows_of(lost.new) == []


async def test_old_windows_may_stay_in_the_archive(lost: Lost) -> None:
    """They are recorded as archived and dropped, so that late rows open them again instead of becoming new facts."""
    start = NOW + 2 * DAY
    assert await lost.load(start=start) == 0
    assert await rows_of(lost.new) == []
    async with connect(lost.new) as conn:
        assert await conn.fetchval("SELECT count(*) FROM archive_manifests") == 5
        marks = await conn.fetch("SELECT table_name, dropped_before FROM retention_marks")
    assert [tuple(row) for row in marks] == [("orderbook_deltas", start // DAY * DAY)]
