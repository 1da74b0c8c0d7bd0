"""Connections: where a database is, who we are there, and how to wait for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import asyncpg

from libs.store.ending import EndingConnection
from libs.store.error_mapping import map_store_errors, text_of
from libs.store.errors import SchemaMismatch, StoreRefused, StoreUnavailable
from libs.store.tls import Tls
from libs.telemetry.logging import get_logger

__all__ = [
    "AnyConnection",
    "Connection",
    "Pool",
    "PooledConnection",
    "Target",
    "abandon",
    "connect",
    "map_store_errors",
    "open_pool",
    "wait_until_there",
]

log = get_logger(__name__)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
AnyConnection: TypeAlias = "Connection | PooledConnection"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

WAIT_S_MIN = 0.2
WAIT_S_MAX = 5.0


@dataclass(slots=True)
class Admitted:
    """Whether a database has let us in. once: it has, so that a refused login is a password under rotation."""

    once: bool = False


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
    ask_user: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """Gives the user of this moment, likewise; `user` is how it was at the start."""
    tls: Tls = field(default_factory=Tls)
    admitted: Admitted = field(default_factory=Admitted, repr=False, compare=False)

    @property
    def address(self) -> str:
        """How messages name this database; without the password."""
        return f"{self.user}@{self.host}:{self.port}/{self.database}"

    def login(self) -> dict[str, Any]:
        """Return the driver's arguments that say who we are and how it is encrypted, as of this moment.

        Raises:
            StoreUnavailable: the file of authorities cannot be read now.
        """
        return {
            "user": self.ask_user() if self.ask_user else self.user,
            "password": self.ask_password() if self.ask_password else self.password,
            "ssl": self.tls.ask(),
        }


def _server_settings(target: Target, application: str) -> dict[str, str]:
    return {
        "application_name": application,
        "statement_timeout": str(int(target.statement_timeout_s * 1000)),
        "timezone": "UTC",
        "jit": "off",
    }


@asynccontextmanager
async def connect(
    target: Target,
    application: str = "kalshi-data",
    *,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Connection]:
    """Open one connection and close it at the end; no waiting. settings: of the server, for this session.

    Raises:
        StoreUnavailable, StoreRefused, SchemaMismatch: as map_store_errors says; a refused login counts as away where the
            password is asked for anew and this target was let in before.
    """
    with map_store_errors(), _rotating(target):
        conn = await asyncpg.connect(
            host=target.host,
            port=target.port,
            database=target.database,
            timeout=target.connect_timeout_s,
            connection_class=EndingConnection,
            server_settings={**_server_settings(target, application), **(settings or {})},
            **target.login(),
        )
    try:
        yield conn
    finally:
        await _close(conn)


@contextmanager
def _rotating(target: Target) -> Iterator[None]:
    """Take a refused login for a password under rotation, where there is one and an earlier one was let in."""
    try:
        yield
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        if target.ask_password and target.admitted.once:
            raise StoreUnavailable(text_of(error)) from error
        raise
    target.admitted.once = True


async def _close(conn: Connection) -> None:
    try:
        await conn.close(timeout=2.0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn.terminate()


def abandon(conn: AnyConnection) -> None:
    """End a connection at once and without waiting, also one that the pool has taken back because it died."""
    with contextlib.suppress(asyncpg.InterfaceError):
        conn.terminate()


async def wait_until_there(
    target: Target,
    *,
    stop: asyncio.Event | None = None,
    patient: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Return once the database answers; every failed attempt doubles the wait, from 0.2 to 5 s.

    Logs `database_away` for every new reason and `database_back` at the end.

    Args:
        patient: a refused login is waited for, too: the migration that makes the role may be under way.
        tell: told of every reason to wait.

    Raises:
        StoreUnavailable: `stop` was set while waiting.
        StoreRefused: the server is there but refuses this user.
    """
    wait, said = WAIT_S_MIN, ""
    while True:
        try:
            async with connect(target):
                pass
        except (StoreUnavailable, SchemaMismatch, StoreRefused) as error:
            # SchemaMismatch here says that the database itself is not created yet.
            if isinstance(error, StoreRefused) and not patient:
                raise
            if type(error).__name__ != said:
                said = type(error).__name__
                log.warning("database_away", database=target.address, error=str(error))
            tell(f"{target.address}: {error}")
        else:
            if said:
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
    """Opens a pool's connections, as who we are now.

    Once one was let in, a refused login is a password under rotation: asked again.
    """

    def __init__(self, target: Target, *, opened: bool) -> None:
        self._target = target
        self._opened = opened

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """As asyncpg.connect.

        Raises:
            StoreUnavailable: refused, though an earlier one was let in.
        """
        try:
            kwargs |= self._target.login()
            conn: Connection = await asyncpg.connect(*args, **kwargs)
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            if self._opened:
                raise StoreUnavailable(text_of(error)) from error
            raise
        self._opened = True
        return conn


@asynccontextmanager
async def open_pool(
    target: Target,
    *,
    wait: bool = True,
    patient: bool = False,
    stop: asyncio.Event | None = None,
    application: str = "kalshi-data",
    tell: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Pool]:
    """Open a pool of at most target.pool_size_max connections, made when first needed; close it at the end.

    Args:
        wait: wait with a log message while the database is away; otherwise it is opened lazily and the first use
            raises.
        patient: a refused login counts as away from the first one on.
        stop: ends the waiting.
        application: the name that pg_stat_activity shows.
        tell: told why it is waited.

    Raises:
        StoreUnavailable: `stop` was set while waiting.
        StoreRefused: the server refuses this user. Later on, once a connection was let in, a refused login counts as
            away (StoreUnavailable): a password that is rotated is there a moment later.
    """
    if wait:
        await wait_until_there(target, stop=stop, patient=patient, tell=tell)
    with map_store_errors():
        pool = await asyncpg.create_pool(
            host=target.host,
            port=target.port,
            database=target.database,
            connect=_Door(target, opened=wait or patient).connect,
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
