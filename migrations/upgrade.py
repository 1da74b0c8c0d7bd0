"""Running the revisions of one database from a program: lock, compare, upgrade; and the extension's own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from libs.store.errors import SchemaMismatch
from libs.store.extension import unloaded_session, update_timescale
from libs.store.partitions import DatabaseKind
from libs.store.pool import Target, connect, map_store_errors
from libs.store.schema import LEVELS, level_fault, read_level
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

ADVISORY_LOCK = 0x6B61_6C73_6869
"""Held by whoever migrates a database: the letters "kalshi"."""
LOCK_WAIT_S_MAX = 300
"""How long one migration waits for another; longer than any of ours takes."""

# Alembic keeps its context in module globals: one upgrade at a time in one process.
_alembic = asyncio.Lock()


async def upgrade(target: Target, kind: DatabaseKind) -> bool:
    """Run the revisions that a database lacks; return whether there were any.

    A newer version's schema that this code may still work on, as after a rollback, stays as it is.

    Raises:
        StoreUnavailable: away, or a lock was not to be had within 5 s.
        StoreRefused: the user may not do this.
        SchemaMismatch: the database stands at a revision that this code neither knows nor may work on.
    """
    config = alembic_config(kind)
    script = ScriptDirectory.from_config(config)
    async with _locked(target) as connection:
        current = await _current_revision(connection)
        if current == script.get_current_head():
            return False
        if current is not None and current not in {r.revision for r in script.walk_revisions()}:
            await _accept_newer(target, kind, current)
            return False
        async with _alembic:
            await connection.run_sync(_run_alembic, config)
            await connection.commit()
        return True


async def update_extension(target: Target) -> bool:
    """Bring TimescaleDB in this database to the server's version; False when there is nothing to update.

    Raises:
        StoreUnavailable: away, or the migration's lock was not to be had. StoreRefused: the user may not do this.
    """
    async with connect(target, "kalshi-data migrate", settings=unloaded_session()) as guard:
        with map_store_errors():
            await guard.execute(f"SET lock_timeout = '{LOCK_WAIT_S_MAX}s'")
            await guard.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        return await update_timescale(target, guard)


def alembic_config(kind: DatabaseKind) -> Config:
    """Return Alembic's configuration of one environment."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / kind).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run_alembic(connection: Connection, config: Config) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _current_revision(connection: AsyncConnection) -> str | None:
    there = await connection.execute(
        text("SELECT to_regclass('public.alembic_version') IS NOT NULL")
    )
    if not there.scalar_one():
        return None
    found = await connection.execute(text("SELECT version_num FROM alembic_version"))
    return found.scalar_one_or_none()


async def _accept_newer(target: Target, kind: DatabaseKind, revision: str) -> None:
    """Return when this code may work on a database that a newer version has migrated.

    Raises:
        SchemaMismatch: it may not, or the database states no level.
    """
    async with connect(target, "kalshi-data migrate") as conn:
        found = await read_level(conn)
    if found is None or level_fault(kind, found, LEVELS[kind]) is not None:
        states = (
            "states no level"
            if found is None
            else "is of level {}, for code of {} or later".format(*found)
        )
        raise SchemaMismatch(
            f"the {kind} database stands at revision {revision}, which this version does not know, and {states};"
            f" this code is of level {LEVELS[kind]}: start a newer version"
        )
    level, oldest_code_level = found
    log.warning(
        "database_is_ahead",
        database=target.address,
        kind=kind,
        revision=revision,
        level=level,
        oldest_code_level=oldest_code_level,
        code_level=LEVELS[kind],
    )


@asynccontextmanager
async def _locked(target: Target) -> AsyncIterator[AsyncConnection]:
    """Connect and hold the advisory lock, so that two migrations of one database are one after the other."""
    login = target.login()
    url = URL.create(
        "postgresql+asyncpg",
        login["user"],
        login["password"],
        target.host,
        target.port,
        target.database,
    )
    settings = {"application_name": "kalshi-data migrate", "timezone": "UTC"}
    arguments = {
        "timeout": target.connect_timeout_s,
        "server_settings": settings,
        "ssl": login["ssl"],
    }
    engine = create_async_engine(url, poolclass=NullPool, connect_args=arguments)
    try:
        with map_store_errors(), _unwrapped():
            async with engine.connect() as connection:
                await connection.execute(text(f"SET lock_timeout = '{LOCK_WAIT_S_MAX}s'"))
                await connection.execute(
                    text("SELECT pg_advisory_lock(:number)"), {"number": ADVISORY_LOCK}
                )
                await connection.execute(text("SET lock_timeout = '5s'"))
                await connection.commit()
                yield connection
    finally:
        await engine.dispose()


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise the driver's own error, which SQLAlchemy wraps twice, so that our border knows it."""
    try:
        yield
    except DBAPIError as error:
        inner = error.orig
        raise ((inner and inner.__cause__) or inner or error) from error
