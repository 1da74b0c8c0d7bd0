"""One migration: wait, lock, run the revisions, then what each start may repeat (identity, partitions)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

import migrations
from libs.store.errors import SchemaMismatch
from libs.store.partitions import DatabaseKind, ensure_partitions
from libs.store.pool import AnyConnection, Target, connect, map_store_errors, wait_until_there
from libs.store.schema import check_level
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

ADVISORY_LOCK = 0x6B61_6C73_6869
"""Held by whoever migrates a database: the number of "kalshi"."""
LOCK_WAIT_S_MAX = 300
"""How long one migration waits for another; longer than any of ours takes."""

# Alembic keeps its context in module globals: one upgrade at a time in one process.
_alembic = asyncio.Lock()


@dataclass(frozen=True, slots=True)
class Migration:
    """One database to migrate; `zone` names a gatherer and is ignored for production."""

    target: Target
    kind: DatabaseKind
    zone: str | None = None


async def migrate_all(
    migrations_: Sequence[Migration], *, stop: asyncio.Event | None = None
) -> None:
    """Migrate several databases at once; the first error cancels the others."""
    async with asyncio.TaskGroup() as tasks:
        for one in migrations_:
            tasks.create_task(
                migrate(one.target, one.kind, one.zone, stop=stop),
                name=f"migrate-{one.target.database}",
            )


async def migrate(
    target: Target,
    kind: DatabaseKind,
    zone: str | None = None,
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Bring one database to this code's level; wait with a message while it is away.

    Args:
        zone: the label of a gatherer's zone, written with its identity when the database has none yet.
        stop: ends the waiting.

    Raises:
        StoreUnavailable: away in the middle, stopped while waiting, or a lock was not to be had.
        StoreRefused: the user may not do this.
        SchemaMismatch: the database is newer than this code.
        ValueError: a gatherer without identity was given no zone.
    """
    await wait_until_there(target, stop=stop)
    await _upgrade(target, kind)
    async with connect(target, "kalshi-data migrate") as conn:
        await check_level(conn, kind)
        with map_store_errors():
            if kind == "gatherer":
                await _write_identity(conn, zone)
            now: int = await conn.fetchval("SELECT now_us()")
            made = (await ensure_partitions(conn, kind, now)).made
    log.info("migrated", database=target.address, kind=kind, partitions_made=len(made))


async def _write_identity(conn: AnyConnection, zone: str | None) -> None:
    """Write the gatherer's identity once; a later zone name changes nothing."""
    if await conn.fetchval("SELECT EXISTS (SELECT FROM gatherer_identity)"):
        return
    if not zone:
        raise ValueError("this gatherer's database has no identity yet; name its zone")
    await conn.execute(
        "INSERT INTO gatherer_identity (zone) VALUES ($1) ON CONFLICT DO NOTHING", zone
    )


@asynccontextmanager
async def _locked(target: Target) -> AsyncIterator[AsyncConnection]:
    """Connect and hold the advisory lock, so that two migrations of one database are one after the other."""
    url = URL.create(
        "postgresql+asyncpg",
        target.user,
        target.password,
        target.host,
        target.port,
        target.database,
    )
    engine = create_async_engine(
        url,
        poolclass=NullPool,
        connect_args={
            "timeout": target.connect_timeout_s,
            "server_settings": {"application_name": "kalshi-data migrate", "timezone": "UTC"},
        },
    )
    try:
        async with engine.connect() as connection:
            await connection.execute(text(f"SET lock_timeout = '{LOCK_WAIT_S_MAX}s'"))
            await connection.execute(
                text("SELECT pg_advisory_lock(:number)"), {"number": ADVISORY_LOCK}
            )
            await connection.execute(text("SET lock_timeout = '5s'"))
            await connection.commit()
            yield connection
    except DBAPIError as error:
        with map_store_errors():
            # The adapter wraps the driver's error once more; the innermost is the one that our border knows.
            raise _innermost(error) from error
    finally:
        await engine.dispose()


def _innermost(error: DBAPIError) -> BaseException:
    inner = error.orig
    return (inner.__cause__ or inner) if inner is not None else error


async def _upgrade(target: Target, kind: DatabaseKind) -> None:
    async with _locked(target) as connection:
        config = alembic_config(kind)
        head = ScriptDirectory.from_config(config).get_current_head()
        if head in await _revisions(connection):
            return
        async with _alembic:
            await connection.run_sync(_run_alembic, config)
            await connection.commit()


async def _revisions(connection: AsyncConnection) -> set[str]:
    there = await connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    if not there.scalar_one():
        return set()
    found = await connection.execute(text("SELECT version_num FROM alembic_version"))
    return set(found.scalars())


def _run_alembic(connection: Connection, config: Config) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config(kind: DatabaseKind) -> Config:
    """Return Alembic's configuration of one environment, found beside this distribution."""
    config = Config()
    folder = Path(migrations.__path__[0]) / kind
    if not folder.is_dir():
        raise SchemaMismatch(f"this installation has no migrations of {kind} ({folder})")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
