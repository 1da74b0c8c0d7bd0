"""One migration: wait, run the revisions, then what each start may repeat (identity, partitions)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from libs.store.partitions import DatabaseKind, ensure_partitions
from libs.store.pool import AnyConnection, Target, connect, map_store_errors, wait_until_there
from libs.store.schema import check_level
from libs.telemetry.logging import get_logger
from migrations.upgrade import upgrade

log = get_logger(__name__)


class ZoneMissing(ValueError):
    """A gatherer's database has no identity yet; name its zone."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One database to migrate; `zone` names a gatherer and is ignored for production."""

    target: Target
    kind: DatabaseKind
    zone: str | None = None


async def migrate_all(wanted: Sequence[Migration], *, stop: asyncio.Event | None = None) -> None:
    """Migrate several databases at once; the first error cancels the others and is raised (see migrate)."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in wanted:
                tasks.create_task(
                    migrate(one.target, one.kind, one.zone, stop=stop),
                    name=f"migrate-{one.target.database}",
                )
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


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
        ZoneMissing: a gatherer without identity was given no zone.
    """
    await wait_until_there(target, stop=stop)
    upgraded = await upgrade(target, kind)
    async with connect(target, "kalshi-data migrate") as conn:
        await check_level(conn, kind)
        with map_store_errors():
            if kind == "gatherer":
                await _write_identity(conn, zone)
            now: int = await conn.fetchval("SELECT now_us()")
        made = (await ensure_partitions(conn, kind, now)).made
    log.info(
        "database_migrated",
        database=target.address,
        kind=kind,
        upgraded=upgraded,
        partitions_made=len(made),
    )


async def _write_identity(conn: AnyConnection, zone: str | None) -> None:
    """Write the gatherer's identity once; a later zone name changes nothing."""
    if await conn.fetchval("SELECT EXISTS (SELECT FROM gatherer_identity)"):
        return
    if not zone:
        raise ZoneMissing("this gatherer's database has no identity yet; name its zone")
    await conn.execute(
        "INSERT INTO gatherer_identity (zone) VALUES ($1) ON CONFLICT DO NOTHING", zone
    )
