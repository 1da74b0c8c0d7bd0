"""`kalshi-data archive list|verify|export` as somebody types them, over a real production and real objects."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.archive.keys import MANIFEST
from libs.archive.manifest import decode_manifest
from libs.archive.objects import ObjectStore
from libs.runtime.clock import SystemClock
from libs.store.pool import Pool, Target, open_pool
from services.archiver.command import main
from services.cli.__main__ import main as cli
from tests.integration.archive.world import WIDTH, Production, archiver


@pytest.fixture
async def pool(production_db: Target) -> AsyncIterator[Pool]:
    async with open_pool(production_db) as opened:
        yield opened


def config_file(target: Target, root: Path, folder: Path) -> Path:
    """A deduplicator's file that names this production and this archive."""
    path = folder / "production.yaml"
    store = {
        "host": target.host, "port": target.port, "user": target.user, "password": target.password,
        "database": target.database,
    }  # fmt: skip
    path.write_text(yaml.safe_dump({"production": store, "archiver": {"root": str(root)}}))
    return path


class Typed:
    """What a command printed, and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def run(self, *words: object) -> tuple[int, str]:
        status = await asyncio.to_thread(main, [str(word) for word in words])
        return status, self._capsys.readouterr().out

    async def document(self, *words: object) -> tuple[int, dict[str, Any]]:
        status, text = await self.run(*words, "--json")
        return status, json.loads(text)


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(capsys)


async def small_archive(target: Target, pool: Pool, root: Path) -> Production:
    """Two windows, the first with a supplement."""
    now = SystemClock().now()
    production, store = Production(target, now), ObjectStore(str(root))
    await production.listen("a", 0)
    await production.merge(3, 1, 12_000_000)
    await archiver(pool, store, now).export_once(closing=True)
    await production.merge(2)
    await archiver(pool, store, now).export_once(closing=True)
    return production


async def test_list_shows_windows_and_totals(
    production_db: Target, pool: Pool, tmp_path: Path, typed: Typed
) -> None:
    """By table and time, with rows, bytes, objects and merges; part of it on demand; a document for programs."""
    root = tmp_path / "archive"
    made = await small_archive(production_db, pool, root)
    status, text = await typed.run("list", "--root", root)
    assert status == 0 and "orderbook_deltas" in text and "0..2" in text
    status, found = await typed.document("list", "--root", root)
    assert [(w["from"], w["rows"], w["objects"], w["merge_to"]) for w in found["windows"]] == [
        (made.start, 3, 2, 2), (made.start + WIDTH, 1, 1, 1),
    ]  # fmt: skip
    assert found["tables"]["orderbook_deltas"]["rows"] == 4
    assert found["tables"]["orderbook_deltas"]["bytes"] == sum(
        path.stat().st_size for path in root.rglob("*.parquet")
    )
    _, later = await typed.document(
        "list", "--root", root, "--table", "orderbook_deltas", "--from", "2100-01-01"
    )
    assert later["windows"] == []


async def test_verify_asks_no_database_and_names_a_flipped_byte(
    production_db: Target, pool: Pool, tmp_path: Path, typed: Typed
) -> None:
    """0 for a sound archive; 1, with the object's name and what of it, after one bit has changed."""
    root = tmp_path / "archive"
    await small_archive(production_db, pool, root)
    status, text = await typed.run("verify", "--root", root)
    assert status == 0 and "no fault" in text
    victim = min(root.rglob("*.parquet"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    status, text = await typed.run("verify", "--root", root)
    assert status == 1 and f"{victim.relative_to(root)}: sha256" in text
    status, found = await typed.document("verify", "--root", root)
    assert [fault["object"] for fault in found["faults"]] == [str(victim.relative_to(root))]


async def test_export_writes_the_same_bytes_again(
    production_db: Target, pool: Pool, tmp_path: Path, typed: Typed
) -> None:
    """Every recorded object comes out of production again, byte for byte; an existing file is never overwritten."""
    root, to = tmp_path / "archive", tmp_path / "again"
    await small_archive(production_db, pool, root)
    config = config_file(production_db, root, tmp_path)
    words = ("export", "--config", config, "--to", to)
    status, found = await typed.document(*words)
    assert (status, found["counts"]) == (0, {"identical": 3})
    names = sorted(path.relative_to(root) for path in root.rglob("*.parquet"))
    assert [(to / name).read_bytes() for name in names] == [
        (root / name).read_bytes() for name in names
    ]
    assert (await typed.run("verify", "--root", to))[0] == 0
    (to / names[0]).write_bytes(b"something else")
    (root / names[1]).write_bytes(b"damaged")
    status, found = await typed.document(*words)
    assert (status, found["counts"]) == (1, {"kept": 1, "archive differs": 1, "identical": 1})
    assert (to / names[0]).read_bytes() == b"something else"
    assert (root / names[1]).read_bytes() == b"damaged"


async def test_export_fills_what_the_archive_misses(
    production_db: Target, pool: Pool, tmp_path: Path, typed: Typed
) -> None:
    """Without a target only missing objects and manifests are put; what production no longer has is said."""
    root = tmp_path / "archive"
    await small_archive(production_db, pool, root)
    config = config_file(production_db, root, tmp_path)
    before = {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")}
    objects = sorted(root.rglob("*.parquet"))
    objects[0].unlink()
    objects[1].with_name(objects[1].name.replace(".parquet", MANIFEST)).unlink()
    status, found = await typed.document("export", "--config", config)
    assert (status, found["counts"]) == (0, {"filled": 2, "there": 1})
    assert {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*")} == before
    objects[0].unlink()
    await pool.execute("DELETE FROM orderbook_deltas")
    status, found = await typed.document("export", "--config", config)
    assert (status, found["counts"]) == (1, {"missing": 1, "there": 2})
    assert not objects[0].exists()


async def test_manifests_say_who_the_gatherers_are(
    production_db: Target, pool: Pool, tmp_path: Path
) -> None:
    """Number, identity and zone of everyone production knows: what the column `gatherer` of the rows means."""
    root = tmp_path / "archive"
    await small_archive(production_db, pool, root)
    row = await pool.fetchrow("SELECT gatherer, identity::text, zone FROM gatherers")
    assert row is not None
    for path in root.rglob(f"*{MANIFEST}"):
        (one,) = decode_manifest(path.read_bytes()).gatherers
        assert (one.gatherer, one.identity, one.zone) == tuple(row)


def test_wrong_words_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No such time, no such file, no archive: a status, one line, no traceback."""
    with pytest.raises(SystemExit) as end:
        cli(["archive", "list", "--root", str(tmp_path), "--from", "yesterday"])
    assert end.value.code == 2
    assert cli(["archive", "verify", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    assert cli(["archive", "list", "--root", str(tmp_path / "empty")]) == 0


def test_a_place_without_an_archive_is_not_proved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped path holds nothing: that is a fault, also when only a part was asked for."""
    nowhere = str(tmp_path / "archvie")
    for part in ([], ["--table", "trades"]):
        assert cli(["archive", "verify", "--root", nowhere, *part]) == 1
        assert f"FAULT {nowhere}: archive: nothing lies there" in capsys.readouterr().out
