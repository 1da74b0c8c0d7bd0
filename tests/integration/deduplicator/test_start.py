"""What a deduplicator waits for, and that it says so; the server it writes to goes down and comes back."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from libs.store.pool import connect
from services.deduplicator import readmit
from services.local.postgres import EmbeddedPostgres
from services.migrate.migration import Migration, migrate_all
from tests.integration.deduplicator.conftest import Databases
from tests.integration.deduplicator.test_away import open_again, shut
from tests.integration.deduplicator.test_killed import config_of
from tests.integration.deduplicator.test_unsound import quarantined
from tests.integration.deduplicator.world import (
    hear,
    keys,
    make_truth,
    merged_keys,
    running,
    true_keys,
)
from tests.support.postgres import (
    scratch_directory,
    server_programs,
    server_settings,
)


@pytest.fixture
async def production_server() -> AsyncIterator[EmbeddedPostgres]:
    """A server of production's own, so that it can be stopped."""
    directory = scratch_directory()
    server = EmbeddedPostgres(
        directory / "production", bin_dir=server_programs(), settings=server_settings(), sync_init=False
    )  # fmt: skip
    try:
        await server.start()
        await migrate_all([Migration(await server.create_database("kalshi"), "production")])
        yield server
    finally:
        await server.kill()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def test_production_s_server_goes_down_twice_and_all_of_it_is_caught_up(
    databases: Databases, production_server: EmbeddedPostgres
) -> None:
    """Stopped while rows come in, then cut off like by a power cut: the zones hold it all until production is back."""
    truth = make_truth(81, 900)
    rows, production = hear(truth), production_server.target("kalshi")
    async with running(databases.gatherers, production) as deduplicator:
        await databases.zones["a"].write(rows[:200])
        await deduplicator.drained()
        await databases.zones["b"].write(rows[:300])
        await production_server.stop()
        await deduplicator.until(lambda h: str(h["reason"]).startswith("waiting for production"))
        await databases.zones["b"].write(rows[300:500])
        assert not deduplicator.health["drained"]
        await production_server.start()
        await deduplicator.drained()
        await databases.zones["c"].write(rows[400:700])
        await production_server.kill()
        await databases.zones["a"].write(rows[200:])
        await deduplicator.until(lambda h: str(h["reason"]).startswith("waiting for production"))
        await production_server.start()
        await deduplicator.drained()
        await deduplicator.until(lambda h: h["ready"])
    async with connect(production) as conn:
        assert sorted(await merged_keys(conn)) == sorted(true_keys(truth))
        merges = await conn.fetch("SELECT merge_no FROM merges ORDER BY merged_at")
        numbers = [row["merge_no"] for row in merges]
        assert numbers == sorted(set(numbers))
        assert await conn.fetchval("SELECT sum(rows_inserted) FROM merges") == len(truth)


async def test_it_waits_for_production_and_then_for_one_gatherer_and_says_so(
    databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither is there at the start: /health and log name what is waited for; one zone is enough to be ready."""
    truth = make_truth(82, 100)
    await databases.zones["b"].write(hear(truth))
    gatherers = {name: replace(db, user="kd_reader") for name, db in databases.gatherers.items()}
    production = replace(databases.production, user="kd_writer")
    async with connect(replace(production, user="postgres", database="postgres")) as server:
        for target in (production, *gatherers.values()):
            await shut(server, target)
        async with running(gatherers, production) as deduplicator:
            reason = f"waiting for production ({production.address}: "
            await deduplicator.started(lambda _: "database_away" in caplog.messages)
            assert str(deduplicator.health["reason"]).startswith(reason)
            assert not deduplicator.health["ready"]
            await open_again(server, production)
            reason = "waiting for at least one healthy gatherer"
            await deduplicator.until(lambda health: health["reason"] == reason)
            assert deduplicator.health["epoch"] == 1
            await deduplicator.until(
                lambda health: {z["status"] for z in health["gatherers"].values()} == {"away"}
            )
            zones = deduplicator.health["gatherers"].values()
            assert all("connection" in zone["last_error"] for zone in zones)
            await open_again(server, gatherers["b"])
            await deduplicator.drained("b")
            await deduplicator.until(lambda health: health["ready"])
            assert deduplicator.health["reason"] == ""
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))
    facts = [(record.msg, getattr(record, "facts", {})) for record in caplog.records]
    assert ("waiting", {"waiting_for": "at least one healthy gatherer"}) in facts
    away = [found for event, found in facts if event == "database_away"]
    assert [found["database"] for found in away] == [production.address]


async def test_roles_and_schema_of_production_may_come_after_it(
    databases: Databases, postgres_server: EmbeddedPostgres
) -> None:
    """Installed all at once: it waits, not ready and saying why, for the login, then for the schema, and then merges."""
    truth = make_truth(85, 50)
    await databases.zones["a"].write(hear(truth))
    empty = await postgres_server.create_database("test_late")
    late = replace(empty, user="kd_late", password="late")
    try:
        async with connect(empty) as admin:
            async with running(databases.gatherers, late) as deduplicator:
                await deduplicator.started(
                    lambda h: "kd_late" in h["reason"] and "failed" in h["reason"]
                )
                await admin.execute("CREATE ROLE kd_late LOGIN PASSWORD 'late' IN ROLE kd_writer")
                await deduplicator.until(lambda h: "has no schema" in h["reason"])
                assert not deduplicator.health["ready"]
                await migrate_all([Migration(empty, "production")])
                await deduplicator.drained()
                await deduplicator.until(lambda h: h["ready"])
            assert sorted(await merged_keys(admin)) == sorted(true_keys(truth))
    finally:
        async with connect(postgres_server.target()) as server:
            await server.execute("DROP DATABASE test_late WITH (FORCE)")
            await server.execute("DROP ROLE IF EXISTS kd_late")


async def test_a_gatherer_with_a_damaged_disk_delays_nobody(databases: Databases) -> None:
    """Its server finds a broken block in the ledger: that zone says so, the others are merged; repaired it follows."""
    truth = make_truth(83, 300)
    rows = hear(truth)
    gatherers = {name: replace(db, user="kd_reader") for name, db in databases.gatherers.items()}
    await databases.zones["a"].write(rows[:200])
    await databases.zones["b"].write(rows[100:])
    async with connect(databases.gatherers["a"]) as conn:
        await conn.execute(
            "CREATE FUNCTION broken() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE 'invalid page in block 7' USING ERRCODE = 'data_corrupted'; END $$"
        )
        await conn.execute("CREATE POLICY broken ON ingest_batches TO kd_reader USING (broken())")
        await conn.execute("ALTER TABLE ingest_batches ENABLE ROW LEVEL SECURITY")
        async with running(gatherers, databases.production) as deduplicator:
            await deduplicator.drained("b", "c")
            await deduplicator.until(
                lambda h: "invalid page in block 7" in h["gatherers"]["a"]["last_error"]
            )
            await conn.execute("ALTER TABLE ingest_batches DISABLE ROW LEVEL SECURITY")
            await deduplicator.drained()
    assert sorted(await merged_keys(databases.conn)) == sorted(true_keys(truth))


async def test_the_operator_s_command_re_admits_a_zone_by_its_name(
    databases: Databases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kalshi-data readmit ZONE`: says what it gave up; a zone unknown or not quarantined is refused with a status."""
    truth = make_truth(84, 100)
    rows = hear(truth)
    await databases.zones["a"].write(rows, batch_max=1)
    async with connect(databases.gatherers["a"]) as conn:
        lane = await conn.fetchval("SELECT lane FROM lanes WHERE family = 'deltas'")
        await conn.execute("DELETE FROM ingest_batches WHERE batch_no IN (31, 32)")
    config = tmp_path / "deduplicator.yaml"
    config.write_text(yaml.safe_dump(config_of(databases)))

    async def command(*arguments: str) -> tuple[int, str]:
        status = await asyncio.to_thread(readmit.main, [*arguments, "--config", str(config)])
        said = capsys.readouterr()
        return status, said.out + said.err

    assert await command("z") == (2, "readmit: no zone z in the configuration\n")
    async with running(databases.gatherers, databases.production) as deduplicator:
        await quarantined(deduplicator, "a")
        status, said = await command("b")
        assert status == 1 and "not quarantined" in said
        status, said = await command("a")
        assert status == 0
        assert f"lane {lane}: batches 31 to 32 given up\n" in said
        assert "zone a is re-admitted as gatherer" in said
        await deduplicator.drained()
    expected = true_keys(truth) - keys(rows[30:32])
    assert sorted(await merged_keys(databases.conn)) == sorted(expected)
