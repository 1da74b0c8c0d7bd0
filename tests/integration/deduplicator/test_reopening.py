"""A gatherer that was away longer than retention keeps: windows are opened again, and every fact is archived once.

Production, the deduplicator, the archiver and its folder are real; a week passes by the times of the rows.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import libs.store.reopening as reopening_module
from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore
from libs.archive.reading import read_groups
from libs.marketdata.tables import (
    GATHERER_TABLES,
    ORDERBOOK_DELTAS,
    TRADES,
    Family,
    Table,
    production_columns,
)
from libs.marketdata.units import DAY, HOUR
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime
from libs.store.dropped import Range, range_of
from libs.store.leases import Lease
from libs.store.pool import Pool, open_pool
from libs.store.readmission import readmit
from libs.telemetry.metrics import Metrics
from services.archiver.reopening import Reopener
from services.archiver.settings import ArchiverSettings
from services.archiver.tasks import Archiver
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.world import (
    CLOCK,
    FAST,
    Change,
    Key,
    Running,
    hear,
    keys,
    make_truth,
    merged_keys,
    running,
    trade,
    true_keys,
)
from tests.support.postgres import with_timescale

CHANGES = 60
UNHEARD = (20, 35)
"""Indices of the truth that only zone c heard."""
LATE = CLOCK.now() // DAY * DAY - 9 * DAY + 5 * HOUR
"""An hour of nine days ago."""


def truth_at(start: int, seed: int = 3) -> list[Change]:
    """Changes from this moment on."""
    truth = make_truth(seed, CHANGES)
    shift = start - truth[0][1] // HOUR * HOUR - truth[0][1] % HOUR
    return [(ticker, at + shift, price, side, size) for ticker, at, price, side, size in truth]


class Archive:
    """An archiver that keeps three days, and what its folder holds.

    So long that no partition around the present goes, whatever hour begins during a test: with one that went, what its
    table's archive holds of earlier times would count as dropped.
    """

    def __init__(self, pool: Pool, root: Path) -> None:
        self.root, self.pool = root, pool
        self.store = ObjectStore(str(root))
        self._lease = Lease(pool, "archiver", uuid4(), 600.0)

    async def begin(self) -> None:
        assert await self._lease.take_once()

    def _parts(self) -> tuple[Any, ...]:
        own = ArchiverSettings(
            str(self.root), retention_s=3 * 86_400, reopened_quiet_s=0, reopening_retry_s_max=0
        )
        metrics = Metrics()
        health = HealthState("archiver", "", CLOCK, metrics)
        return (
            own,
            self.pool,
            self.store,
            Runtime(CLOCK, asyncio.Event(), health, metrics),
            self._lease,
        )

    async def export(self) -> int:
        return await Archiver(*self._parts()).export_once(closing=True)

    async def drop(self) -> None:
        """Let retention do its work; nothing as old as the rows here may be left."""
        await self.retain()
        for table in GATHERER_TABLES.values():
            if table.partitioned_in_production:
                column = table.time_column
                query = f"SELECT count(*) FROM {table.name} WHERE {column} < $1"
                assert await self.pool.fetchval(query, LATE + 2 * DAY) == 0, table.name

    async def retain(self) -> None:
        """Let retention do its work."""
        await Archiver(*self._parts()).drop_once()

    async def reopen(self) -> None:
        await Reopener(*self._parts()).reopen_once()

    async def rows(self, table: Table, supplement: int | None = None) -> list[dict[str, Any]]:
        """Every row of the table's objects, those of one supplement only when it is named."""
        names = [column.name for column in production_columns(table)]
        objects = await self.pool.fetch(
            "SELECT object FROM archive_manifests WHERE table_name = $1 AND ($2::int IS NULL OR supplement = $2)",
            table.name, supplement,
        )  # fmt: skip
        return [
            dict(zip(names, row, strict=True))
            for (name,) in objects
            for group in read_groups(table, self.root / name)
            for row in group
        ]

    async def deltas(self, supplement: int | None = None) -> list[Key]:
        rows = await self.rows(ORDERBOOK_DELTAS, supplement)
        fields = ("ticker", "exchange_ts", "price", "side", "size_delta", "occurrence")
        return [tuple(row[name] for name in fields) for row in rows]


@asynccontextmanager
async def archive_of(databases: Databases, root: Path) -> AsyncIterator[Archive]:
    """An archiver over production, with the role it is given; the deduplicators have theirs from here on."""
    archiver = replace(databases.production, user="kd_archiver")
    databases.production = replace(databases.production, user="kd_writer")
    async with open_pool(archiver) as pool:
        archive = Archive(pool, root)
        await archive.begin()
        yield archive


async def week_passed(
    databases: Databases, archive: Archive, truth: Sequence[Change], *extra: Any
) -> None:
    """Zones a and b deliver all but one span, it is merged, archived and dropped."""
    for name in "ab":
        await databases.zones[name].write(hear(truth, [UNHEARD]))
        await databases.zones[name].write_other(
            "trades", [trade(1, LATE), trade(2, LATE + 5)], Family.TRADES
        )
    async with running(databases.gatherers, databases.production) as deduplicator:
        await deduplicator.drained()
    await archive.export()
    await archive.drop()
    assert sorted(await archive.deltas()) == sorted(keys(hear(truth, [UNHEARD])))


def waits(health: dict[str, Any]) -> bool:
    """Zone c waits, and production was told."""
    entry = health["gatherers"]["c"]
    return entry["status"] == "reopening" and "(requested)" in entry["last_error"]


async def caught_up(deduplicator: Running, archive: Archive) -> None:
    """Be the archiver's loop until everything is merged."""
    drained = asyncio.create_task(deduplicator.drained())
    while not drained.done():
        await archive.reopen()
        await asyncio.wait([drained], timeout=0.1)
    await drained


async def states(archive: Archive) -> dict[Range, str]:
    rows = await archive.pool.fetch(
        "SELECT table_name, range_from, range_to, state FROM archive_reopenings"
    )
    return {Range(*row[:3]): row["state"] for row in rows}


async def object_of(archive: Archive) -> str:
    """The name of the one object of deltas."""
    query = "SELECT object FROM archive_manifests WHERE table_name = 'orderbook_deltas'"
    return str(await archive.pool.fetchval(query))


async def details(archive: Archive) -> list[str]:
    rows = await archive.pool.fetch("SELECT detail FROM archive_reopenings WHERE detail <> ''")
    return [row["detail"] for row in rows]


async def status(deduplicator: Running, wanted: str) -> dict[str, Any]:
    """Return zone c's entry once it has this status."""
    await deduplicator.until(lambda health: health["gatherers"]["c"]["status"] == wanted)
    entry: dict[str, Any] = deduplicator.health["gatherers"]["c"]
    return entry


async def test_copies_and_new_rows_of_a_dropped_window(
    databases: Databases, tmp_path: Path
) -> None:
    """Only copies: nothing new. Copies and new rows: exactly the new ones, in a supplement; then dropped again."""
    truth = truth_at(LATE)
    late, hour = databases.zones["c"], range_of(ORDERBOOK_DELTAS, LATE)
    async with archive_of(databases, tmp_path) as archive:
        await week_passed(databases, archive, truth)
        objects = await archive.pool.fetchval("SELECT count(*) FROM archive_manifests")
        async with running(databases.gatherers, databases.production) as deduplicator:
            await late.write(hear(truth, [UNHEARD]))
            await late.write_other("trades", [trade(1, LATE + 7)], Family.TRADES)
            await deduplicator.until(waits)
            # The others are merged meanwhile, and nobody is drained who waits.
            now = make_truth(9, 20)
            await databases.zones["a"].write(hear(now))
            await deduplicator.drained("a", "b")
            entry = deduplicator.health["gatherers"]["c"]
            assert entry["drained_at"] is None and "orderbook_deltas_p" in entry["last_error"]
            metric = deduplicator.runtime.metrics.gatherer_reopening.labels(gatherer="c")
            assert metric._value.get() >= 1
            await caught_up(deduplicator, archive)
            assert (await states(archive))[hour] == "open"
            assert sorted(await merged_keys(databases.conn)) == sorted(
                keys(hear(truth, [UNHEARD])) | true_keys(now)
            )
            assert await archive.pool.fetchval("SELECT count(*) FROM trades") == 2
            await archive.export()
            await archive.drop()
            assert set((await states(archive)).values()) == {"closed"}
            added = await archive.pool.fetchval("SELECT count(*) FROM archive_manifests") - objects
            assert added == 1 and await archive.deltas(1) == []  # of today's rows only
            await late.renew_lanes()
            await late.write(hear(truth))
            await deduplicator.until(waits)
            await caught_up(deduplicator, archive)
            await archive.export()
            await archive.drop()
        everything = true_keys(truth) | true_keys(now)
        assert sorted(await archive.deltas()) == sorted(everything)
        assert set(await archive.deltas(1)) == true_keys(truth) - keys(hear(truth, [UNHEARD]))
        trades = Counter(row["trade_id"] for row in await archive.rows(TRADES))
        assert trades == {"trade-1": 1, "trade-2": 1}


async def test_a_trade_of_another_day_is_not_a_second_fact(
    databases: Databases, tmp_path: Path
) -> None:
    """Its first row lies in a dropped day, the copy's time in the next one: the look-up finds it all the same."""
    midnight = LATE // DAY * DAY + DAY
    async with archive_of(databases, tmp_path) as archive:
        for zone, moment in (("a", midnight - 10), ("b", midnight + 20)):
            row = trade(1 if zone == "a" else 2, moment)
            await databases.zones[zone].write_other("trades", [row], Family.TRADES)
        async with running(databases.gatherers, databases.production) as deduplicator:
            await deduplicator.drained()
            await archive.export()
            await archive.drop()
            copies = [trade(1, midnight + 10), trade(2, midnight - 20), trade(3, midnight + 30)]
            await databases.zones["c"].write_other("trades", copies, Family.TRADES)
            await deduplicator.until(waits)
            await caught_up(deduplicator, archive)
        await archive.export()
        await archive.drop()
        found = sorted((row["trade_id"], row["exchange_ts"]) for row in await archive.rows(TRADES))
        assert found == [
            ("trade-1", midnight - 10), ("trade-2", midnight + 20), ("trade-3", midnight + 30)
        ]  # fmt: skip


class Crash(Exception):
    """The archiver ends here."""


def crash_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let a step be done once, and end the process then."""
    done = getattr(owner, name)

    async def step(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, done)
        await done(*args, **kwargs)
        raise Crash(name)

    monkeypatch.setattr(owner, name, step)


async def test_a_crash_at_any_step_changes_nothing(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded, attached, counted, fenced, committed; the deduplicator killed while it waits and after it was let go."""
    hours = [LATE + number * HOUR for number in range(6)]
    truths = [truth_at(hour, seed) for seed, hour in enumerate(hours)]
    late = databases.zones["c"]
    import services.archiver.reopening as service

    steps: list[tuple[Any, str]] = [
        (reopening_module, "load_rows"),
        (reopening_module, "_attach"),
        (reopening_module, "_verify"),
        (Lease, "holds"),
        (service, "reopen"),
    ]
    if with_timescale():
        del steps[1]  # a chunk is made by its rows
    async with archive_of(databases, tmp_path) as archive:
        await week_passed(databases, archive, [change for truth in truths for change in truth])
        for truth, (owner, name) in zip(truths, steps, strict=False):
            async with running(databases.gatherers, databases.production) as deduplicator:
                await late.write(hear(truth))
                await deduplicator.until(waits)
                await deduplicator.kill()
            crash_after(monkeypatch, owner, name)
            with pytest.raises(Crash):
                await archive.reopen()
            is_open = (await states(archive))[range_of(ORDERBOOK_DELTAS, truth[0][1])] == "open"
            assert is_open == (name == "reopen")
            await archive.reopen()
        async with running(databases.gatherers, databases.production) as deduplicator:
            await deduplicator.until(lambda health: health["merges"] > 0)
            await deduplicator.kill()
        async with running(databases.gatherers, databases.production) as deduplicator:
            await caught_up(deduplicator, archive)
        await archive.export()
        await archive.drop()
        everything = [change for truth in truths for change in truth]
        assert Counter(await archive.deltas()) == Counter(true_keys(everything))


async def test_a_store_that_is_away_and_an_object_that_is_wrong(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away: the request stands, nobody is set aside, the others go on, a stop does not wait for it.

    A wrong hash, or an object that is gone: loud, tried again; brought back, everything goes on by itself.
    """
    truth, now = truth_at(LATE), make_truth(8, 20)

    def away(*_: object) -> str:
        raise ArchiveError("the bucket could not be read: connection refused")

    async with archive_of(databases, tmp_path) as archive:
        await week_passed(databases, archive, truth)
        patient = replace(FAST, grace_s=600.0)
        async with running(databases.gatherers, databases.production, patient) as deduplicator:
            await databases.zones["c"].write(hear(truth))
            await deduplicator.until(waits)
            with monkeypatch.context() as patch:
                patch.setattr(ObjectStore, "download", away)
                for _ in range(3):
                    await archive.reopen()
            assert list((await states(archive)).values()) == ["requested"]
            await databases.zones["a"].write(hear(now))
            await deduplicator.drained("a", "b")
            assert deduplicator.health["gatherers"]["c"]["status"] == "reopening"
            assert set(await merged_keys(databases.conn)) == true_keys(now)
            # Within a minute or not at all: the grace is ten.
            await deduplicator.stop()
        file = tmp_path / await object_of(archive)
        right = file.read_bytes()
        async with running(databases.gatherers, databases.production) as deduplicator:
            for wrong in (right[:99] + bytes([right[99] ^ 1]) + right[100:], None):
                if wrong is None:
                    file.unlink()
                else:
                    file.write_bytes(wrong)
                await archive.reopen()
                entry = await status(deduplicator, "quarantined")
                assert "batch_no=1 reopening: orderbook_deltas_p" in entry["last_error"]
                assert ("sha256" if wrong else "could not be read") in (await details(archive))[0]
            assert list((await states(archive)).values()) == ["failed"]
            failed = "SELECT count(*) FROM operational_events WHERE kind = 'reopening_failed'"
            assert await archive.pool.fetchval(failed) == 1
            file.write_bytes(right)
            await caught_up(deduplicator, archive)
        await archive.export()
        await archive.drop()
        assert sorted(await archive.deltas()) == sorted(true_keys(truth) | true_keys(now))


async def test_an_operator_gives_up_what_cannot_be_opened(
    databases: Databases, tmp_path: Path
) -> None:
    """The batches that need the lost object are given up, with a gap; what else the gatherer has is merged."""
    truth, now = truth_at(LATE), make_truth(8, 20)
    async with archive_of(databases, tmp_path) as archive:
        await week_passed(databases, archive, truth)
        (tmp_path / await object_of(archive)).unlink()
        async with running(databases.gatherers, databases.production) as deduplicator:
            await databases.zones["c"].write(hear(truth), batch_max=10**6)
            await databases.zones["c"].write(hear(now))
            await deduplicator.until(waits)
            await archive.reopen()
            await status(deduplicator, "quarantined")
            await readmit(databases.gatherers["c"], databases.production, skip_unsound=True)
            await deduplicator.drained()
        assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(now))
