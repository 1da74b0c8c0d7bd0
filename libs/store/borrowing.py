"""A pool's connection for a while; a cancellation gives it back within a second, whatever the server does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from libs.store.ending import CANCELLED_S
from libs.store.error_mapping import unfit_is_away
from libs.store.pool import Pool, PooledConnection, map_store_errors

BORROW_S_MAX: Final = 30.0
"""Of who can do nothing else meanwhile."""


@asynccontextmanager
async def borrow(pool: Pool, timeout_s: float = BORROW_S_MAX) -> AsyncIterator[PooledConnection]:
    """Lend a connection of the pool, waiting at most so many seconds for it; the driver's errors are mapped.

    Raises:
        StoreUnavailable: none to be had.
    """
    with map_store_errors():
        async with pool.acquire(timeout=timeout_s) as conn:
            try:
                yield conn
            except asyncio.CancelledError:
                # The pool ends it if the server says nothing; whoever is cancelled is not to hear of that instead.
                with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await pool.release(conn, timeout=CANCELLED_S)
                raise


@asynccontextmanager
async def borrow_patiently(pool: Pool, timeout_s: float) -> AsyncIterator[PooledConnection]:
    """As borrow, for who waits for a database anyway: one whose schema does not fit counts as away.

    Raises:
        StoreUnavailable: none to be had, or the schema does not fit.
    """
    with unfit_is_away():
        async with borrow(pool, timeout_s) as conn:
            yield conn
