"""Migrating a database that a newer version has migrated already, as every Job does after a rollback."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from libs.store.errors import SchemaMismatch
from libs.store.logins import Login
from libs.store.partitions import DatabaseKind
from libs.store.pool import AnyConnection, Target, connect
from libs.store.schema import LEVELS
from services.migrate.migration import migrate
from tests.support.postgres import NewDatabase

REVISION = "g9999"
COLUMNS = """
SELECT c.relname, c.relkind, c.relacl::text, a.attname, a.atttypid::regtype::text, pg_get_expr(c.relpartbound, c.oid)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, a.attnum
"""
FUNCTIONS = """
SELECT oid::regprocedure::text, md5(pg_get_functiondef(oid)), proacl::text FROM pg_proc
 WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' ORDER BY 1
"""
VIEWS = "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1"
LEVEL = (
    "SELECT level, oldest_code_level, (SELECT version_num FROM alembic_version) FROM schema_level"
)
NEWER = """
ALTER TABLE trades ADD COLUMN venue text;
CREATE TABLE venues (name text PRIMARY KEY);
CREATE VIEW venues_known AS SELECT name FROM venues;
CREATE OR REPLACE FUNCTION now_us() RETURNS bigint LANGUAGE sql
    AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 0';
GRANT SELECT ON venues TO kd_reader;
"""
"""What another version may have added: to a table and a function of ours, and something new."""


async def _schema(conn: AnyConnection) -> list[Any]:
    return [await conn.fetch(query) for query in (COLUMNS, FUNCTIONS, VIEWS, LEVEL)]


async def _advance(target: Target, level: int, oldest_code_level: int) -> None:
    """Make it a newer version's."""
    async with connect(target) as conn:
        await conn.execute(NEWER)
        await conn.execute("UPDATE alembic_version SET version_num = $1", REVISION)
        await conn.execute("UPDATE schema_level SET level = $1, oldest_code_level = $2", level, oldest_code_level)  # fmt: skip


async def _passes(target: Target, password: str) -> bool:
    async with connect(replace(target, user="ahead", password=password)) as conn:
        found: bool = await conn.fetchval("SELECT pg_has_role('kd_reader', 'MEMBER')")
        return found


def _told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The facts of every line of this event."""
    return [vars(line)["facts"] for line in caplog.records if vars(line).get("event") == event]


@pytest.mark.parametrize("kind", ["gatherer", "production"])
async def test_a_newer_schema_that_fits_stays_and_logins_are_set(
    new_database: NewDatabase, kind: DatabaseKind, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the schema changes, at any run; the password is the one that the old version was told last."""
    caplog.set_level(logging.INFO)
    target, own = new_database(kind), LEVELS[kind]
    await _advance(target, own + 1, own)
    async with connect(target) as conn:
        before = await _schema(conn)
        for password in ("first", "second"):
            caplog.clear()
            await migrate(target, kind, "a", [Login("kd_reader", "ahead", password)])
            (ahead,) = _told(caplog, "database_is_ahead")
            assert (ahead["revision"], ahead["level"], ahead["code_level"]) == (REVISION, own + 1, own)  # fmt: skip
            assert [one["upgraded"] for one in _told(caplog, "database_migrated")] == [False]
            assert await _passes(target, password)
        assert await _schema(conn) == before


@pytest.mark.parametrize(("ahead", "oldest_ahead"), [(2, 1), (-1, -1)])
async def test_a_schema_that_does_not_fit_is_refused(
    gatherer_db: Target, ahead: int, oldest_ahead: int
) -> None:
    """Of code that is newer than ours, or of a level below ours that no revision of ours leads from; nothing changes."""
    own = LEVELS["gatherer"]
    await _advance(gatherer_db, own + ahead, own + oldest_ahead)
    async with connect(gatherer_db) as conn:
        before = await _schema(conn)
        with pytest.raises(SchemaMismatch, match=f"{REVISION}.*level {own + ahead}, for code of {own + oldest_ahead} or later.*level {own}: start a newer"):  # fmt: skip
            await migrate(gatherer_db, "gatherer", "a", [Login("kd_reader", "refused", "none")])
        assert await _schema(conn) == before
        assert not await conn.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'refused')")  # fmt: skip


async def test_a_schema_without_a_level_is_refused(gatherer_db: Target) -> None:
    """Whoever's it is, it says nothing of ours."""
    await _advance(gatherer_db, 9, 9)
    async with connect(gatherer_db) as conn:
        await conn.execute("DROP TABLE schema_level CASCADE")
    with pytest.raises(SchemaMismatch, match=r"g9999.*states no level"):
        await migrate(gatherer_db, "gatherer")
