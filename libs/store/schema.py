"""Schema levels: does this code fit this database?

A database states the level of its schema and the oldest code level that may still work on it; a service starts when
both fit its own level, so that schemas are expanded first and contracted one release later.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg

from libs.store.error_mapping import unfit_is_away
from libs.store.errors import SchemaMismatch, StoreUnavailable
from libs.store.partition_plan import DatabaseKind
from libs.store.pool import AnyConnection, Pool, map_store_errors
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

WAIT_S = 1.0

GATHERER_LEVEL: Final = 5
"""The level of a gatherer's database that this code was written for."""
PRODUCTION_LEVEL: Final = 4
"""The level of production that this code was written for."""
LEVELS: Final[dict[DatabaseKind, int]] = {
    "gatherer": GATHERER_LEVEL,
    "production": PRODUCTION_LEVEL,
}


def level_fault(kind: DatabaseKind, found: tuple[int, int] | None, code_level: int) -> str | None:
    """Say why code and database do not fit, None when they do.

    Args:
        found: (level, oldest_code_level) of the database, None when it has no schema.
    """
    if found is None:
        return f"the {kind} database has no schema; run: kalshi-data migrate --database {kind}"
    level, oldest_code_level = found
    if level < code_level:
        return (
            f"the {kind} database is at level {level}, this code needs {code_level};"
            f" run: kalshi-data migrate --database {kind}"
        )
    if oldest_code_level > code_level:
        return (
            f"this code is of level {code_level}, the {kind} database (level {level}) needs"
            f" {oldest_code_level} or later; start a newer version"
        )
    return None


async def read_level(conn: AnyConnection) -> tuple[int, int] | None:
    """Return (level, oldest_code_level), None when the database has no schema."""
    try:
        row = await conn.fetchrow("SELECT level, oldest_code_level FROM schema_level")
    except asyncpg.UndefinedTableError:
        return None
    return (row["level"], row["oldest_code_level"]) if row else None


async def check_level(conn: AnyConnection, kind: DatabaseKind) -> None:
    """Return when this code may work on this database; ask again to wait for a migration.

    Raises:
        SchemaMismatch: it may not; the message says which of the two is behind.
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        found = await read_level(conn)
    fault = level_fault(kind, found, LEVELS[kind])
    if fault is not None:
        raise SchemaMismatch(fault)


async def insist_on_level(conn: AnyConnection, kind: DatabaseKind) -> None:
    """As check_level, for whoever waits for a database anyway: one whose schema does not fit counts as away.

    Raises:
        StoreUnavailable: it does not fit, or is away.
    """
    with unfit_is_away():
        await check_level(conn, kind)


async def wait_for_level(
    pool: Pool,
    kind: DatabaseKind,
    stop: asyncio.Event,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Return when this code may work on this database; look every second, say once what is behind.

    Args:
        tell: told of every reason to wait.

    Raises:
        StoreUnavailable: `stop` was set while waiting.
    """
    said = ""
    while not stop.is_set():
        try:
            with map_store_errors():
                async with pool.acquire() as conn:
                    await check_level(conn, kind)
        except (SchemaMismatch, StoreUnavailable) as error:
            if str(error) != said:
                said = str(error)
                log.warning("waiting_for_schema", database_kind=kind, reason=said)
            tell(said)
        else:
            return
        await first_of(stop, timeout_s=WAIT_S)
    raise StoreUnavailable("stopped while waiting for the schema")
