"""Asks every database that a file names, side by side; one that is away has an `error`, the others their figures."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final, LiteralString

from libs.runtime.health import fetch_health
from libs.runtime.sections import HealthSettings
from libs.store.errors import StoreError
from libs.store.pool import Connection, Target, connect, map_store_errors
from libs.store.schema import read_level
from libs.store.table_sizes import read_table_sizes
from services.status.settings import Asked, ZoneFile
from services.status.zone import zone_figures

PRODUCTION: Final = "production"
APPLICATION: Final = "kalshi-data status"
EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on
_PRODUCTION: LiteralString = """
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now,
       (SELECT merge_no FROM writer_lease) AS merge_no,
       (SELECT expires_at > clock_timestamp() FROM writer_lease) AS has_writer,
       (SELECT extract(epoch FROM clock_timestamp() - max(merged_at)) FROM merges) AS last_merge_s,
       (SELECT count(*) FROM archive_manifests) AS objects,
       (SELECT count(*) FROM archive_pending) AS pending_windows,
       (SELECT count(*) FROM conflicts) AS conflicts,
       (SELECT pg_database_size(current_database())) AS bytes
"""
_GATHERERS: LiteralString = """
SELECT zone, identity::text AS identity, status, detail, (SELECT count(*) FROM gaps p WHERE p.gatherer = g.gatherer) AS gaps
  FROM gatherers g ORDER BY zone, gatherer
"""

Figures = dict[str, Any]
Question = Callable[[Connection], Awaitable[Figures]]


async def ask_all(asked: Asked) -> dict[str, Figures]:
    """Return the figures by zone, and of production under "production", where the file names it."""
    work = [_answer(name, target, ask) for name, target, ask in _questions(asked)]
    found = dict(await asyncio.gather(*work))
    if isinstance(asked.file, ZoneFile):
        found[asked.file.zone] |= await _beside(asked.file)
    return found


def targets(asked: Asked) -> dict[str, Target]:
    """Every database that the file names."""
    file = asked.file
    if isinstance(file, ZoneFile):
        return {file.zone: file.store.target()}
    named = {source.zone: source.store.target() for source in file.gatherers}
    return {**named, PRODUCTION: file.production.target()}


def _questions(asked: Asked) -> list[tuple[str, Target, Question]]:
    slots = asked.file.slots if isinstance(asked.file, ZoneFile) else None

    async def zone(conn: Connection) -> Figures:
        return await zone_figures(conn, slots, asked.storage_bytes_max)

    return [
        (name, target, production_figures if name == PRODUCTION else zone)
        for name, target in targets(asked).items()
    ]


async def _answer(name: str, target: Target, ask: Question) -> tuple[str, Figures]:
    try:
        async with connect(target, APPLICATION) as conn:
            with map_store_errors():
                found = await ask(conn)
                sizes = await read_table_sizes(conn)
    except StoreError as error:
        return name, {"address": target.address, "error": str(error)}
    return name, {**found, "tables": {table: asdict(size) for table, size in sizes.items()}}


async def production_figures(conn: Connection) -> Figures:
    """What production says of itself; raises the driver's errors."""
    row = await conn.fetchrow(_PRODUCTION)
    found = dict(row) if row else {}
    level = await read_level(conn)
    found["level"] = None if level is None else level[0]
    found["gatherers"] = [dict(entry) for entry in await conn.fetch(_GATHERERS)]
    return found


async def _beside(file: ZoneFile) -> Figures:
    """What the process of this pod says, if one answers: only a connector knows what waits in its spool."""
    process = await _own_health(file.health)
    is_connector = process is not None and process.get("service") == "connector"
    return {"process": process, "spool": process.get("spool") if process and is_connector else None}


async def _own_health(health: HealthSettings) -> Figures | None:
    if not health.port:
        return None
    host = "127.0.0.1" if health.host in EVERYWHERE else health.host
    try:
        return await fetch_health(health.port, host)
    except (OSError, ValueError):
        return None
