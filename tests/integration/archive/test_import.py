"""Production is lost: its archive comes back into a new one, the gatherers bring the rest, the archive goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.archive.catalogue import Fault, Selection, read_catalogue
from libs.archive.objects import ObjectStore
from libs.archive.verification import verify_objects
from libs.marketdata.tables import GATHERER_TABLES, Family, production_key
from libs.marketdata.units import DAY, SECOND
from libs.store.pool import Pool, Target, connect, open_pool
from services.archiver.command_import import import_archive, import_superseded
from services.archiver.command_show import Output
from services.archiver.reopening import Reopener
from services.archiver.settings import ArchiverSettings, Settings
from services.archiver.tasks import Archiver
from tests.integration.archive.world import archiver as archiver_of
from tests.integration.deduplicator.world import (
    CLOCK,
    Change,
    Zone,
    hear,
    listened,
    make_truth,
    running,
    store_of,
    ticker,
    trade,
)
from tests.support.postgres import NewDatabase

TABLES = ("orderbook_deltas", "trades", "tickers", "listen_ranges")


def spread(truth: list[Change]) -> list[Change]:
    """The same changes over 30 s, so that there are several windows."""
    return [(c[0], c[1] + n // 50 * 4 * SECOND, *c[2:]) for n, c in enumerate(truth)]


@dataclass
class World:
    """Three gatherers with writers, an archive in a folder, and productions made on demand."""

    gatherers: dict[str, Target]
    zones: dict[str, Zone]
    root: Path
    new_database: NewDatabase
    truth: list[Any] = field(default_factory=lambda: spread(make_truth(7, 400)))

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(str(self.root))

    def settings(self, production: Target) -> Settings:
        return Settings(ArchiverSettings(root=str(self.root)), store_of(production))

    async def write(self, start: int, end: int) -> None:
        """Every zone commits these changes, each without some of its own; trades, tickers and a claim beside them."""
        rows = hear(self.truth)[start:end]
        for number, zone in enumerate(self.zones.values()):
            heard = [row for at, row in enumerate(rows) if at % 7 != number]
            await zone.write(heard)
            await zone.write_together([heard[-1]], [listened(9, heard[-1].exchange_ts)])
        now = rows[0].exchange_ts
        more = [trade(n, now) for n in range(start, end, 20)]
        await self.zones["a"].write_other("trades", more, Family.TRADES)
        late = [one._replace(exchange_ts=now - 7_000_000) for one in more]
        await self.zones["b"].write_other("trades", late, Family.TRADES)
        ticks = [ticker(n, now) for n in range(start, end, 50)]
        await self.zones["c"].write_other("tickers", ticks, Family.TRADES)

    async def merge(self, production: Target) -> None:
        """The deduplicator, until it has everything."""
        async with running(self.gatherers, production) as deduplicator:
            await deduplicator.drained()

    async def archive(self, production: Target) -> int:
        """The archiver, until every window is archived; return how many objects it wrote."""
        async with open_pool(production) as pool:
            return await archiver(pool, self.store).export_once(closing=True)

    def faults(self) -> list[Fault]:
        catalogue = read_catalogue(self.store)
        found = [fault for one in verify_objects(self.store, catalogue) for fault in one.faults]
        return [*catalogue.faults, *found]


def archiver(pool: Pool, store: ObjectStore) -> Archiver:
    made = archiver_of(pool, store, CLOCK.now())
    made._settings = ArchiverSettings(root="unused", tables=tuple(GATHERER_TABLES), window_s=10)
    return made


@pytest.fixture
async def world(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[World]:
    gatherers = {zone: new_database("gatherer", zone) for zone in "abc"}
    async with AsyncExitStack() as stack:
        zones = {}
        for seed, (zone, target) in enumerate(gatherers.items()):
            zones[zone] = Zone(await stack.enter_async_context(open_pool(target)), seed)
        yield World(gatherers, zones, tmp_path / "archive", new_database)
        for writer in zones.values():
            await writer.close()


async def facts(production: Target) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table by its key."""
    found = {}
    async with connect(production) as conn:
        for name, table in GATHERER_TABLES.items():
            key = "trade_id" if name == "trades" else ", ".join(production_key(table))
            rows = await conn.fetch(f"SELECT {key} FROM {name}")
            found[name] = sorted(tuple(row) for row in rows)
    return found


async def whole_rows(production: Target, up_to: int) -> dict[str, list[tuple[Any, ...]]]:
    """Every column of every row merged up to a number."""
    found = {}
    async with connect(production) as conn:
        for name in TABLES:
            rows = await conn.fetch(f"SELECT * FROM {name} WHERE merge_no <= $1", up_to)
            found[name] = sorted((tuple(row) for row in rows), key=repr)
    return found


async def last_merge(production: Target) -> int:
    async with connect(production) as conn:
        return int(await conn.fetchval("SELECT merge_no FROM writer_lease"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


async def test_a_lost_production_comes_back_and_its_archive_goes_on(world: World) -> None:
    """Import, then what gatherers have: it equals the first one; late rows are supplements, nothing is archived twice."""
    lost, new = world.new_database("production"), world.new_database("production")
    await world.write(0, 230)
    await world.merge(lost)
    objects = await world.archive(lost)
    archived_to = await last_merge(lost)
    before = {name: world.store.get(name) for name in world.store.names()}
    await world.write(210, 400)
    await world.merge(lost)
    quiet = Output(is_json=False)
    assert await import_archive(world.settings(new), world.store, 0, quiet) == 0
    assert await whole_rows(new, archived_to) == await whole_rows(lost, archived_to)
    assert await last_merge(new) >= archived_to
    await world.merge(new)
    assert await facts(new) == await facts(lost)
    more = await world.archive(new)
    assert more > 0
    assert {name: world.store.get(name) for name in before} == before
    assert world.faults() == []
    catalogue = read_catalogue(world.store)
    assert len(catalogue.manifests) == objects + more and catalogue.superseded == []
    assert any(manifest.supplement == 1 for manifest in catalogue.manifests)
    async with connect(new) as conn:
        for name in GATHERER_TABLES:
            rows = sum(m.rows for m in catalogue.manifests if m.table == name)
            assert rows == await conn.fetchval(f"SELECT count(*) FROM {name}"), name


async def test_rows_set_aside_can_be_merged(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the key, under a new number and production's own numbers of gatherers; once more changes nothing."""
    first = world.new_database("production")
    await world.write(0, 60)
    await world.merge(first)
    await world.archive(first)
    wanted = await facts(first)
    async with connect(first) as conn:
        await conn.execute("DELETE FROM archive_manifests")
        await conn.execute("UPDATE archive_progress SET merge_no = 0")
        # What the lost history held and this one does not, but for one row of each table.
        for name in TABLES:
            await conn.execute(
                f"DELETE FROM {name} WHERE ctid IN (SELECT ctid FROM {name} WHERE merge_no <= $1 OFFSET 1)",
                await conn.fetchval("SELECT merge_no FROM writer_lease"),
            )
        await conn.execute("UPDATE writer_lease SET merge_no = merge_no + 1")
    await one_more_archive(world, first)
    assert len(read_catalogue(world.store).superseded) > 0
    assert await import_superseded(world.settings(first), world.store, Selection(), Output(is_json=True)) == 0  # fmt: skip
    done = msgspec.json.decode(said(capsys))["objects"]
    assert sum(one["inserted"] for one in done) > 0
    found = await facts(first)
    for name in TABLES:
        assert found[name] == wanted[name], name
    assert await import_superseded(world.settings(first), world.store, Selection(), Output(is_json=True)) == 0  # fmt: skip
    done = msgspec.json.decode(said(capsys))["objects"]
    assert {one["inserted"] for one in done} == {0}
    assert await world.archive(first) > 0
    assert world.faults() == []


async def one_more_archive(world: World, production: Target) -> None:
    """As if production had recorded something before, so that its archiver knows the bucket for its own."""
    async with open_pool(production) as pool:
        work = archiver(pool, world.store)
        work._is_own = True
        await work.export_once(closing=True)


async def test_windows_left_in_the_archive_open_for_late_rows(world: World) -> None:
    """Only records were imported; what gatherers have again opens the windows, and nothing is archived twice."""
    lost, new = world.new_database("production"), world.new_database("production")
    await world.write(0, 60)
    await world.merge(lost)
    await world.archive(lost)
    await world.write(40, 120)
    await world.merge(lost)
    start = CLOCK.now() + 2 * DAY
    assert await import_archive(world.settings(new), world.store, start, Output(is_json=False)) == 0
    assert sum(map(len, (await facts(new)).values())) == 0
    async with open_pool(new) as pool, running(world.gatherers, new) as deduplicator:
        reopening = asyncio.create_task(keep_reopening(pool, world.store))
        await deduplicator.drained()
        reopening.cancel()
    assert await facts(new) == await facts(lost)
    await world.archive(new)
    assert world.faults() == []
    manifests = read_catalogue(world.store).manifests
    async with connect(new) as conn:
        for name in TABLES:
            rows = sum(m.rows for m in manifests if m.table == name)
            assert rows == await conn.fetchval(f"SELECT count(*) FROM {name}"), name


async def keep_reopening(pool: Pool, store: ObjectStore) -> None:
    """What the archiver does beside its exports."""
    work = archiver(pool, store)
    reopener = Reopener(work._settings, pool, store, work._runtime, work._lease)
    while True:
        await reopener.reopen_once()
        await asyncio.sleep(0.05)
