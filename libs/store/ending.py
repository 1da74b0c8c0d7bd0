"""How a cancelled transaction ends: rolled back where the server gives its word for it, and without it where it does not.

The driver rolls back only after the server has acknowledged that the running statement was broken off. A server that
takes connections and answers nothing would hold whoever is to end for as long as a statement may take.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg.transaction import Transaction

if TYPE_CHECKING:
    _Driver = asyncpg.Connection[asyncpg.Record]
else:
    _Driver = asyncpg.Connection

CANCELLED_S: Final = 1.0
"""Seconds a server has to acknowledge a cancellation; then the connection is ended without it."""


class EndingTransaction(Transaction):
    """A transaction that a cancellation ends within CANCELLED_S: rolled back, or gone with its connection."""

    __slots__ = ("_of",)

    def __init__(self, conn: _Driver, isolation: Any, readonly: bool, deferrable: bool) -> None:
        super().__init__(conn, isolation, readonly, deferrable)
        self._of = conn

    async def __aexit__(self, extype: object, ex: object, tb: object) -> None:
        if not isinstance(ex, asyncio.CancelledError):
            await super().__aexit__(extype, ex, tb)
            return
        try:
            async with asyncio.timeout(CANCELLED_S):
                await super().__aexit__(extype, ex, tb)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self._of.terminate()
        except asyncio.CancelledError:
            self._of.terminate()
            raise


class EndingConnection(_Driver):
    """A connection whose transactions are such."""

    __slots__ = ()

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        """As the driver's."""
        return EndingTransaction(self, isolation, readonly, deferrable)
