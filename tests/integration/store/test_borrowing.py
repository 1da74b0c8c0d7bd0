"""A use of the database that is cancelled ends, also when the server takes connections and answers nothing."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from libs.store import borrowing, ending
from libs.store.borrowing import borrow
from libs.store.pool import Pool, PooledConnection, Target, open_pool
from services.local.postgres import EmbeddedPostgres
from tests.integration.connector.test_spool import frozen


async def _statement(conn: PooledConnection, begun: asyncio.Event, go: asyncio.Event) -> None:
    begun.set()
    await go.wait()
    await conn.execute("select 1")


async def _transaction(conn: PooledConnection, begun: asyncio.Event, go: asyncio.Event) -> None:
    async with conn.transaction(isolation="read_committed"):
        await _statement(conn, begun, go)


Use = Callable[[PooledConnection, asyncio.Event, asyncio.Event], Awaitable[None]]


async def _begin(pool: Pool, use: Use, go: asyncio.Event) -> asyncio.Task[None]:
    begun = asyncio.Event()

    async def work() -> None:
        async with borrow(pool, 5.0) as conn:
            await conn.execute("select 1")
            await use(conn, begun, go)

    task = asyncio.create_task(work())
    await begun.wait()
    return task


@pytest.mark.parametrize("use", [_statement, _transaction])
async def test_a_cancellation_does_not_wait_for_a_server_that_answers_nothing(
    use: Use, postgres_server: EmbeddedPostgres, gatherer_db: Target
) -> None:
    """It ends long before a statement's time-out, as a cancellation; the pool works again when the server does."""
    async with asyncio.timeout(60), open_pool(gatherer_db) as pool:
        go = asyncio.Event()
        task = await _begin(pool, use, go)
        with frozen(postgres_server):
            go.set()
            await asyncio.wait([task], timeout=0.1)
            assert not task.done()
            task.cancel()
            await asyncio.wait([task], timeout=20.0)
            assert task.cancelled()
        async with borrow(pool, 5.0) as conn:
            assert await conn.fetchval("select 7") == 7


async def test_a_cancelled_transaction_is_rolled_back_on_a_server_that_answers(
    gatherer_db: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement is broken off there, nothing of it stays, and the connection is used again."""
    monkeypatch.setattr(ending, "CANCELLED_S", 30.0)
    monkeypatch.setattr(borrowing, "CANCELLED_S", 30.0)
    async with asyncio.timeout(60), open_pool(gatherer_db) as pool:
        async with borrow(pool, 5.0) as conn:
            backend = await conn.fetchval("select pg_backend_pid()")
        begun = asyncio.Event()

        async def work() -> None:
            async with borrow(pool, 5.0) as conn, conn.transaction():
                await conn.execute("update planner set holder = 'cancelled'")
                begun.set()
                await conn.execute("select pg_sleep(50)")

        task = asyncio.create_task(work())
        await begun.wait()
        await asyncio.wait([task], timeout=0.1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        async with borrow(pool, 5.0) as conn:
            assert await conn.fetchval("select pg_backend_pid()") == backend
            assert not await conn.fetchval(
                "select exists(select from planner where holder = 'cancelled')"
            )
            # Nothing of it holds the row any more.
            await conn.execute("select from planner for update nowait")
