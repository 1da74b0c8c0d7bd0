"""The migrated databases: columns, keys, levels, identity, roles; and migrating them again."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from libs.marketdata.tables import (
    GATHERER_TABLES,
    Column,
    Kind,
    Table,
    production_columns,
    production_key,
)
from libs.store.errors import SchemaMismatch, StoreRefused
from libs.store.pool import AnyConnection, Target, connect, map_store_errors
from libs.store.schema import LEVELS, check_level, read_level
from libs.store.slot_moves import with_markets
from migrations.upgrade import alembic_config, upgrade
from services.local.postgres import EmbeddedPostgres
from services.migrate.migration import Migration, ZoneMissing, migrate, migrate_all
from tests.support.postgres import NewDatabase

COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable
  FROM pg_attribute a WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
KEY = """
SELECT array_agg(a.attname::text ORDER BY k.place) AS columns, x.indnullsnotdistinct AS nulls_equal
  FROM pg_index x, unnest(x.indkey::int2[]) WITH ORDINALITY AS k(number, place)
  JOIN pg_attribute a ON a.attnum = k.number
 WHERE x.indrelid = $1::regclass AND a.attrelid = x.indrelid AND x.indisunique
 GROUP BY x.indexrelid, x.indnullsnotdistinct
"""


async def _columns(conn: AnyConnection, table: str) -> list[Column]:
    found = await conn.fetch(COLUMNS, table)
    return [Column(row["name"], Kind(row["type"]), row["nullable"]) for row in found]


@pytest.mark.parametrize("table", GATHERER_TABLES.values(), ids=lambda table: table.name)
async def test_gatherer_columns_are_the_tables_own(gatherer_db: Target, table: Table) -> None:
    """Name, type, nullability and order equal tables.py, behind batch_id; no key forbids doubles."""
    async with connect(gatherer_db) as conn:
        assert await _columns(conn, table.name) == [Column("batch_id", Kind.INT8), *table.columns]
        assert await conn.fetch(KEY, table.name) == []


@pytest.mark.parametrize("table", GATHERER_TABLES.values(), ids=lambda table: table.name)
async def test_production_columns_and_keys(production_db: Target, table: Table) -> None:
    """Columns equal tables.py with production's own behind them; one unique key, in which NULLs are equal."""
    async with connect(production_db) as conn:
        assert tuple(await _columns(conn, table.name)) == production_columns(table)
        (key,) = await conn.fetch(KEY, table.name)
        assert tuple(key["columns"]) == production_key(table)
        assert key["nulls_equal"]


async def test_text_sorts_by_bytes(gatherer_db: Target, production_db: Target) -> None:
    """Every text column of a fact has collation C, whatever the server's locale is."""
    query = (
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relname = ANY($1) AND a.atttypid = 'text'::regtype AND a.attnum > 0"
        " AND a.attcollation <> '\"C\"'::regcollation"
    )
    for target in (gatherer_db, production_db):
        async with connect(target) as conn:
            assert await conn.fetch(query, list(GATHERER_TABLES)) == []


async def test_levels_fit_this_code(gatherer_db: Target, production_db: Target) -> None:
    """A fresh database states exactly the level of this code."""
    async with connect(gatherer_db) as conn:
        await check_level(conn, "gatherer")
        assert await read_level(conn) == (LEVELS["gatherer"], 4)
    async with connect(production_db) as conn:
        await check_level(conn, "production")


async def test_unmigrated_database_is_refused(postgres_server: EmbeddedPostgres) -> None:
    """A database without schema says that it needs the migration."""
    async with connect(postgres_server.target()) as conn:
        with pytest.raises(SchemaMismatch, match="no schema"):
            await check_level(conn, "production")


async def test_migrating_again_changes_nothing(gatherer_db: Target) -> None:
    """Identity and zone stay as they are, even when another zone is named."""
    async with connect(gatherer_db) as conn:
        before = await conn.fetchrow("SELECT * FROM gatherer_identity")
        await migrate(gatherer_db, "gatherer", "somewhere else")
        assert await conn.fetchrow("SELECT * FROM gatherer_identity") == before
        assert before is not None and before["zone"] == "a"


async def test_databases_have_different_identities(new_database: NewDatabase) -> None:
    """Each fresh gatherer database has an identity of its own and the zone it was asked for."""
    found = set()
    for zone in ("a", "b"):
        async with connect(new_database("gatherer", zone)) as conn:
            (row,) = await conn.fetch("SELECT zone, identity FROM gatherer_identity")
            found.add(tuple(row))
    assert len({identity for _, identity in found}) == 2
    assert {zone for zone, _ in found} == {"a", "b"}


async def test_two_migrations_at_once_are_one_after_the_other(
    postgres_server: EmbeddedPostgres,
) -> None:
    """Two processes that migrate one empty database both succeed; the revisions run once."""
    target = await postgres_server.create_database("test_twice")
    try:
        made = await asyncio.gather(upgrade(target, "production"), upgrade(target, "production"))
        assert sorted(made) == [False, True]
    finally:
        async with connect(postgres_server.target()) as conn:
            await conn.execute("DROP DATABASE test_twice WITH (FORCE)")


async def test_a_gatherer_needs_a_zone(postgres_server: EmbeddedPostgres) -> None:
    """An empty gatherer database without a zone's name is refused with a clear error; with one it works."""
    target = await postgres_server.create_database("test_zoneless")
    try:
        with pytest.raises(ZoneMissing):
            await migrate_all([Migration(target, "gatherer")])
        await migrate_all([Migration(target, "gatherer", "z")])
        async with connect(target) as conn:
            assert await conn.fetchval("SELECT zone FROM gatherer_identity") == "z"
    finally:
        async with connect(postgres_server.target()) as conn:
            await conn.execute("DROP DATABASE test_zoneless WITH (FORCE)")


async def test_wrong_password_is_refused_not_waited_for(gatherer_db: Target) -> None:
    """A migration with a wrong password ends at once with an error that says so."""
    with pytest.raises(StoreRefused, match="password"):
        await migrate(replace(gatherer_db, password="wrong"), "gatherer")


def test_revision_ids_name_their_database() -> None:
    """Both environments have one head whose file and id begin with the database's letter."""
    from alembic.script import ScriptDirectory

    for kind, letter in (("gatherer", "g"), ("production", "p")):
        head = ScriptDirectory.from_config(alembic_config(kind)).get_current_head()  # type: ignore[arg-type]
        assert head is not None and head.startswith(letter)


def _as(target: Target, role: str) -> Target:
    return replace(target, user=role)


async def test_writer_inserts_facts_and_never_changes_them(gatherer_db: Target) -> None:
    """kd_writer may insert a fact, and may neither update nor delete one, nor create tables as itself."""
    async with connect(_as(gatherer_db, "kd_writer")) as conn:
        await conn.execute(
            "INSERT INTO exchange_status VALUES (1, 1, 1, 1, 'status', '{}', true, true)"
        )
        for statement in (
            "UPDATE exchange_status SET body = ''",
            "DELETE FROM exchange_status",
            "CREATE TABLE mine (a int)",
        ):
            with pytest.raises(StoreRefused), map_store_errors():
                await conn.execute(statement)


async def test_reader_acknowledges_and_nothing_else(gatherer_db: Target) -> None:
    """kd_reader reads everything and writes only acknowledgements and releases."""
    async with connect(_as(gatherer_db, "kd_reader")) as conn:
        await conn.fetch("SELECT * FROM orderbook_deltas")
        await conn.execute(
            "INSERT INTO lane_acknowledgements (lane, batch_no, merge_no) VALUES (gen_random_uuid(), 1, 1)"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("DELETE FROM ingest_batches")


async def test_planner_and_status_see_what_they_need(gatherer_db: Target) -> None:
    """kd_planner plans and reads no fact; kd_status reads and writes nothing."""
    async with connect(_as(gatherer_db, "kd_planner")) as conn:
        await conn.execute("UPDATE planner SET epoch = epoch + 1")
        await conn.execute("UPDATE shards SET extra_connections = extra_connections + 1")
        assert await with_markets(conn, ["orderbook/0"]) == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetch("SELECT * FROM trades")
    async with connect(_as(gatherer_db, "kd_status")) as conn:
        assert len(await conn.fetch("SELECT * FROM table_counts")) == len(GATHERER_TABLES)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute("UPDATE planner SET epoch = epoch + 1")


async def test_archiver_records_manifests_only(production_db: Target) -> None:
    """kd_archiver reads facts, keeps its own tables, and inserts no fact."""
    async with connect(_as(production_db, "kd_archiver")) as conn:
        await conn.fetch("SELECT * FROM orderbook_deltas")
        await conn.execute("INSERT INTO archive_progress VALUES ('trades', 1)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.execute(
                "INSERT INTO archive_progress SELECT 'x', merge_no FROM trades; DELETE FROM trades"
            )
