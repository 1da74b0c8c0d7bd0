"""Who a gatherer is to production: known, new, or its zone's again; inside the writer's transaction.

One database at a time is its zone's: whichever comes replaces the others. A quarantined one stays so until an operator
re-admits it (readmission.py).
"""

from collections.abc import Collection
from typing import Final, LiteralString
from uuid import UUID

from libs.store import merge_sql as sql
from libs.store.merge_records import record_events
from libs.store.merge_transaction import Admission, EventRow
from libs.store.pool import Connection

CURSOR_KEPT_S: Final = 40 * 86_400.0
"""Seconds for which the cursor of a lane that its gatherer has forgotten is kept: 3 days until the release, 7 until the
lane goes there, 30 longer, for a database that comes back from a backup."""

_FORGET: LiteralString = "DELETE FROM sync_cursors WHERE gatherer = $1 AND lane = ANY($2)"

_CURSORS: LiteralString = """
SELECT lane, batch_no, extract(epoch FROM clock_timestamp() - merged_at)::float8 AS age_s,
    merged_at > coalesce((SELECT max(at) FROM operational_events WHERE gatherer = $1
        AND kind IN ('gatherer_went_back', 'gatherer_readmitted')), '-infinity') AS is_untold
FROM sync_cursors WHERE gatherer = $1
"""
"""A re-admission may have moved cursors beyond what the gatherer holds: an operator knows of that."""


async def admit(conn: Connection, identity: UUID, zone: str) -> Admission:
    """Return what production knows of a gatherer; a new one is admitted at once, with an event row."""
    found = await conn.fetchrow(sql.FIND_GATHERER, identity)
    if found is None:
        return await _admit_new(conn, identity, zone)
    number, zone, status, detail = found
    if status == "replaced":
        status, detail = "ok", ""
        await _return_replaced(conn, number, zone)
    records = await conn.fetch(_CURSORS, number)
    cursors = {record["lane"]: record["batch_no"] for record in records}
    untold = {record["lane"]: record["age_s"] for record in records if record["is_untold"]}
    old = frozenset(record["lane"] for record in records if record["age_s"] > CURSOR_KEPT_S)
    return Admission(number, zone, status, detail or "", False, False, cursors, untold, old)


async def forget_cursors(conn: Connection, gatherer: int, lanes: Collection[UUID]) -> None:
    """Delete the cursors of lanes that are no longer anywhere."""
    await conn.execute(_FORGET, gatherer, list(lanes))


async def _admit_new(conn: Connection, identity: UUID, zone: str) -> Admission:
    is_first = not await conn.fetchval(sql.COUNT_ZONE, zone)
    number = await conn.fetchval(sql.ADMIT_GATHERER, identity, zone)
    kind = "gatherer_admitted" if is_first else "gatherer_new_identity"
    await conn.execute(sql.REPLACE_OTHERS, zone, number)
    await record_events(conn, [EventRow(kind, number, f"zone {zone} identity {identity}")])
    return Admission(number, zone, "ok", "", True, not is_first, {}, {}, frozenset())


async def _return_replaced(conn: Connection, number: int, zone: str) -> None:
    """A database that another one had replaced is its zone's again."""
    await conn.execute(sql.RETURN_GATHERER, number)
    await conn.execute(sql.REPLACE_OTHERS, zone, number)
    await record_events(conn, [EventRow("gatherer_returned", number, f"zone {zone}")])
