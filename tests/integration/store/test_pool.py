"""Pools on a real server: waiting, mapped errors, and no secret in any message."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from libs.store.errors import (
    SchemaMismatch,
    StoreConflict,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from libs.store.pool import Target, connect, map_store_errors, open_pool, wait_until_there
from libs.store.schema import wait_for_level
from services.local.postgres import EmbeddedPostgres
from tests.support.postgres import scratch_directory, server_programs


def _nowhere() -> Target:
    return Target("127.0.0.1", 1, "kalshi", "kd_writer", "secret", connect_timeout_s=1.0)


async def test_waiting_ends_with_the_stop_signal() -> None:
    """While the database is away a pool does not open; stop ends the waiting with a retryable error."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, stop.set)
    with pytest.raises(
        StoreUnavailable, match=r"stopped while waiting for kd_writer@127\.0\.0\.1:1/kalshi"
    ):
        async with open_pool(_nowhere(), stop=stop):
            pass


async def test_a_pool_that_does_not_wait_fails_at_its_first_use() -> None:
    """Without waiting the pool opens lazily; its first connection says that the database is away."""
    async with open_pool(_nowhere(), wait=False) as pool:
        with pytest.raises(StoreUnavailable), map_store_errors():
            await pool.fetchval("SELECT 1")


async def test_waiting_ends_when_the_server_is_there() -> None:
    """A pool that is opened before its server starts opens as soon as it answers, also from a pool's old connection."""
    server = EmbeddedPostgres(
        scratch_directory() / "late", bin_dir=server_programs(), sync_init=False
    )
    try:
        await server.start()
        await server.stop()
        waiting = asyncio.create_task(wait_until_there(server.target()))
        await server.start()
        async with asyncio.timeout(60):
            await waiting
        async with open_pool(server.target()) as pool:
            assert await pool.fetchval("SELECT 1") == 1
            await server.kill()
            with pytest.raises(StoreUnavailable), map_store_errors():
                await pool.fetchval("SELECT 1")
            await server.start()
            assert await pool.fetchval("SELECT 2") == 2
    finally:
        await server.kill()
        server.remove()
        server.home.parent.rmdir()


async def test_a_wrong_password_is_not_waited_for(gatherer_db: Target) -> None:
    """Waiting is for databases that are away, not for one that refuses us."""
    with pytest.raises(StoreRefused):
        await wait_until_there(replace(gatherer_db, password="wrong"))


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("SELECT * FROM nowhere", SchemaMismatch),
        ("SELECT nothing FROM lanes", SchemaMismatch),
        ("INSERT INTO gatherer_identity SELECT * FROM gatherer_identity", StoreConflict),
        ("SELECT pg_terminate_backend(pg_backend_pid())", StoreUnavailable),
        ("SET statement_timeout = 10; SELECT pg_sleep(1)", StoreUnavailable),
    ],
)
async def test_errors_are_mapped_by_what_to_do(
    gatherer_db: Target, statement: str, error: type[StoreError]
) -> None:
    """Missing schema, taken keys and lost connections become the store's own errors, with the cause chained."""
    async with connect(gatherer_db) as conn:
        with pytest.raises(error) as raised, map_store_errors():
            await conn.execute(statement)
        assert raised.value.__cause__ is not None


def test_a_rollback_on_a_connection_that_just_died_is_a_database_away() -> None:
    """In the driver's words as they were seen when a server stopped; the same words alone are our own mistake."""
    busy = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
    with pytest.raises(StoreUnavailable), map_store_errors():
        try:
            raise asyncpg.InternalClientError(
                "cannot switch to state 18; another operation (2) is in progress"
            )
        finally:
            raise busy
    with pytest.raises(asyncpg.InterfaceError), map_store_errors():
        raise asyncpg.InterfaceError(str(busy))


async def test_a_closed_connection_is_unavailable_and_misuse_is_not(gatherer_db: Target) -> None:
    """The driver's one class for both is told apart: only the first may be retried."""
    async with connect(gatherer_db) as conn:
        await conn.close()
        with pytest.raises(StoreUnavailable), map_store_errors():
            await conn.execute("SELECT 1")
    async with connect(gatherer_db) as conn:
        with pytest.raises(asyncpg.InterfaceError), map_store_errors():
            await conn.fetch("SELECT $1::int")


def _note(told: list[str], stop: asyncio.Event) -> Callable[[str], None]:
    def tell(why: str) -> None:
        told.append(why)
        stop.set()

    return tell


async def test_a_service_waits_for_its_schema(gatherer_db: Target) -> None:
    """wait_for_level returns once the level fits; until then it tells which is behind, and a stop ends it."""
    stop, told = asyncio.Event(), list[str]()
    async with open_pool(gatherer_db) as pool:
        async with asyncio.timeout(60):
            await wait_for_level(pool, "gatherer", stop)
        for levels, behind in (
            ("level = 0", "this code needs"),
            ("level = 99, oldest_code_level = 98", "98 or later"),
        ):
            await pool.execute(f"UPDATE schema_level SET {levels}")
            told.clear()
            with pytest.raises(StoreUnavailable, match="stopped"):
                await wait_for_level(pool, "gatherer", stop, _note(told, stop))
            assert len(told) == 1 and behind in told[0]
            stop.clear()


async def test_a_refused_login_is_waited_for_where_roles_may_come(gatherer_db: Target) -> None:
    """A patient pool opens once the migration has made the role; an impatient one says at once that it is refused."""
    told, refused = list[str](), asyncio.Event()
    late = replace(gatherer_db, user="kd_late", password="late")

    async def wait() -> Any:
        async with open_pool(late, patient=True, tell=_note(told, refused)) as pool:
            return await pool.fetchval("SELECT current_user")

    async with connect(gatherer_db) as admin:
        waiting = asyncio.create_task(wait())
        async with asyncio.timeout(60):
            await refused.wait()
            await admin.execute("CREATE ROLE kd_late LOGIN PASSWORD 'late'")
            try:
                assert await waiting == "kd_late"
            finally:
                await admin.execute("DROP ROLE kd_late")
    assert "kd_late" in told[0]
    with pytest.raises(StoreRefused):
        async with open_pool(late):
            pass


def test_the_password_is_in_no_text() -> None:
    """Neither repr nor address shows it."""
    assert "secret" not in repr(_nowhere()) + _nowhere().address
