"""Connections: where a database is, how to wait for it, and what its errors mean to us.

Every foreign error is mapped here, at the border, so that the rest decides by class: StoreUnavailable is asked again,
everything else ends the process with its own exit status.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from libs.store.ending import EndingConnection
from libs.store.errors import (
    SchemaMismatch,
    StoreBroken,
    StoreConflict,
    StoreRefused,
    StoreUnavailable,
)
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
AnyConnection: TypeAlias = "Connection | PooledConnection"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

WAIT_S_MIN = 0.2
WAIT_S_MAX = 5.0

_UNAVAILABLE = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # locked, in use, or closed to connections
    asyncpg.PostgresSystemError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
)
_MISMATCH = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.DatatypeMismatchError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
)
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one database is and who we are there; time-outs in seconds."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    pool_size_max: int = 8
    connect_timeout_s: float = 10.0
    statement_timeout_s: float = 60.0
    ask_password: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """Gives the password of this moment, asked at every new connection; None: `password` is for good."""

    @property
    def address(self) -> str:
        """How messages name this database; without the password."""
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


@contextmanager
def map_store_errors() -> Iterator[None]:
    """Raise the store's errors in place of the driver's and the system's, with the cause chained.

    Raises:
        StoreUnavailable: away, overloaded, locked, or the transaction must be repeated.
        StoreConflict: a unique key is taken.
        StoreRefused: wrong user, password or grants.
        SchemaMismatch: a table, column or database that is not there.
        StoreBroken: the server met damaged data or a fault of its own.
    """
    try:
        yield
    except _UNAVAILABLE as error:
        raise StoreUnavailable(_text(error)) from error
    except asyncpg.UniqueViolationError as error:
        raise StoreConflict(_text(error)) from error
    except _REFUSED as error:
        raise StoreRefused(_text(error)) from error
    except _MISMATCH as error:
        raise SchemaMismatch(_text(error)) from error
    except asyncpg.InternalServerError as error:
        raise StoreBroken(_text(error)) from error
    except asyncpg.InterfaceError as error:
        # The driver has one class for a closed connection and for our own misuse; only the first may be retried.
        if _is_closed(error):
            raise StoreUnavailable(_text(error)) from error
        raise


def _is_closed(error: asyncpg.InterfaceError) -> bool:
    """Say whether a dead connection is the cause: its words say so, or they are a rollback's after it had died.

    The server's farewell comes a moment before the end of the socket; what is asked in between finds "another operation".
    """
    if any(word in str(error) for word in ("closed", "closing", "released", "terminated")):
        return True
    before = error.__context__
    return isinstance(before, _UNAVAILABLE) or (
        isinstance(before, asyncpg.InterfaceError) and _is_closed(before)
    )


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _server_settings(target: Target, application: str) -> dict[str, str]:
    return {
        "application_name": application,
        "statement_timeout": str(int(target.statement_timeout_s * 1000)),
        "timezone": "UTC",
        "jit": "off",
    }


@asynccontextmanager
async def connect(target: Target, application: str = "kalshi-data") -> AsyncIterator[Connection]:
    """Open one connection and close it at the end; no waiting.

    Raises:
        StoreUnavailable, StoreRefused, SchemaMismatch: as map_store_errors says.
    """
    with map_store_errors():
        conn = await asyncpg.connect(
            host=target.host,
            port=target.port,
            database=target.database,
            user=target.user,
            password=target.ask_password or target.password,
            timeout=target.connect_timeout_s,
            connection_class=EndingConnection,
            server_settings=_server_settings(target, application),
        )
    try:
        yield conn
    finally:
        await _close(conn)


async def _close(conn: Connection) -> None:
    try:
        await conn.close(timeout=2.0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn.terminate()


def abandon(conn: AnyConnection) -> None:
    """End a connection at once and without waiting, also one that the pool has taken back because it died."""
    with contextlib.suppress(asyncpg.InterfaceError):
        conn.terminate()


async def wait_until_there(target: Target, *, stop: asyncio.Event | None = None) -> None:
    """Return once the database answers; every failed attempt doubles the wait, from 0.2 to 5 s.

    Logs `database_away` once and `database_back` after it.

    Raises:
        StoreUnavailable: `stop` was set while waiting.
        StoreRefused: the server is there but refuses this user.
    """
    wait, away = WAIT_S_MIN, False
    while True:
        try:
            async with connect(target):
                pass
        except (StoreUnavailable, SchemaMismatch) as error:
            # SchemaMismatch here says that the database itself is not created yet.
            if not away:
                log.warning("database_away", database=target.address, error=str(error))
            away = True
        else:
            if away:
                log.info("database_back", database=target.address)
            return
        if await _stopped(stop, wait):
            raise StoreUnavailable(f"stopped while waiting for {target.address}")
        wait = min(2 * wait, WAIT_S_MAX)


async def _stopped(stop: asyncio.Event | None, wait_s: float) -> bool:
    """Wait that long; return True as soon as stop is set."""
    if stop is None:
        await asyncio.sleep(wait_s)
        return False
    try:
        async with asyncio.timeout(wait_s):
            await stop.wait()
    except TimeoutError:
        return False
    return True


class _Door:
    """Opens a pool's connections. Once one was let in, a refused login is a password under rotation: asked again."""

    def __init__(self, *, opened: bool) -> None:
        self._opened = opened

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """As asyncpg.connect.

        Raises:
            StoreUnavailable: refused, though an earlier one was let in.
        """
        try:
            conn: Connection = await asyncpg.connect(*args, **kwargs)
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            if self._opened:
                raise StoreUnavailable(_text(error)) from error
            raise
        self._opened = True
        return conn


@asynccontextmanager
async def open_pool(
    target: Target,
    *,
    wait: bool = True,
    stop: asyncio.Event | None = None,
    application: str = "kalshi-data",
) -> AsyncIterator[Pool]:
    """Open a pool of at most target.pool_size_max connections, made when first needed; close it at the end.

    Args:
        wait: wait with a log message while the database is away; otherwise it is opened lazily and the first use
            raises.
        stop: ends the waiting.
        application: the name that pg_stat_activity shows.

    Raises:
        StoreUnavailable: `stop` was set while waiting.
        StoreRefused: the server refuses this user. Later on, once a connection was let in, a refused login counts as
            away (StoreUnavailable): a password that is rotated is there a moment later.
    """
    if wait:
        await wait_until_there(target, stop=stop)
    with map_store_errors():
        pool = await asyncpg.create_pool(
            host=target.host,
            port=target.port,
            database=target.database,
            user=target.user,
            password=target.ask_password or target.password,
            connect=_Door(opened=wait).connect,
            connection_class=EndingConnection,
            min_size=0,
            max_size=target.pool_size_max,
            max_inactive_connection_lifetime=300.0,
            timeout=target.connect_timeout_s,
            # Longer than the server's own limit, so that the server's answer comes first; it bounds a dead peer.
            command_timeout=target.statement_timeout_s + 10.0,
            server_settings=_server_settings(target, application),
        )
    try:
        yield pool
    finally:
        await _close_pool(pool)


async def _close_pool(pool: Pool) -> None:
    try:
        async with asyncio.timeout(5.0):
            await pool.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()
