"""One migration: wait, run the revisions, then what each run may repeat (identity, partitions, logins)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from libs.store.errors import StoreUnavailable
from libs.store.logins import Login, apply_logins
from libs.store.partitions import DatabaseKind, ensure_partitions
from libs.store.pool import AnyConnection, Target, connect, map_store_errors, wait_until_there
from libs.store.schema import check_level
from libs.telemetry.logging import get_logger
from migrations.upgrade import update_extension, upgrade

log = get_logger(__name__)


class ZoneMissing(ValueError):
    """A gatherer's database has no identity yet; name its zone."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One database to migrate; `zone` names a gatherer and is ignored for production."""

    target: Target
    kind: DatabaseKind
    zone: str | None = None
    logins: tuple[Login, ...] = ()


async def migrate_all(
    wanted: Sequence[Migration],
    *,
    stop: asyncio.Event | None = None,
    wait_s: float | None = None,
) -> None:
    """Migrate several databases at once; the first error cancels the others and is raised (see migrate)."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for one in wanted:
                tasks.create_task(
                    migrate(one.target, one.kind, one.zone, one.logins, stop=stop, wait_s=wait_s),
                    name=f"migrate-{one.target.database}",
                )
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group


async def migrate(
    target: Target,
    kind: DatabaseKind,
    zone: str | None = None,
    logins: Sequence[Login] = (),
    *,
    stop: asyncio.Event | None = None,
    wait_s: float | None = None,
) -> None:
    """Bring one database to this code's level; wait with a message while it is away.

    One that a newer version has migrated keeps its schema, if this code may work on it; partitions and logins are made
    all the same, so that after a rollback passwords can still be changed.

    Args:
        zone: the label of a gatherer's zone, written with its identity when the database has none yet.
        logins: who may log in, with which password; made or changed at every run.
        stop: ends the waiting.
        wait_s: longest to wait for the database, seconds; None: for ever.

    Raises:
        StoreUnavailable: away in the middle or for too long, stopped while waiting, or a lock was not to be had.
        StoreRefused: the user may not do this.
        SchemaMismatch: the database is too new for this code.
        ZoneMissing: a gatherer without identity was given no zone.
    """
    try:
        async with asyncio.timeout(wait_s):
            await wait_until_there(target, stop=stop)
    except TimeoutError as error:
        raise StoreUnavailable(f"{target.address} was not there within {wait_s:g} s") from error
    await update_extension(target)
    upgraded = await upgrade(target, kind)
    async with connect(target, "kalshi-data migrate") as conn:
        await check_level(conn, kind)
        with map_store_errors():
            if kind == "gatherer":
                await _write_identity(conn, zone)
            now: int = await conn.fetchval("SELECT now_us()")
        made = (await ensure_partitions(conn, kind, now)).made
        await apply_logins(conn, logins)
    log.info(
        "database_migrated",
        database=target.address,
        kind=kind,
        upgraded=upgraded,
        partitions_made=len(made),
        logins=[login.user for login in logins],
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
