"""Who a gatherer is to production: known, new, or its zone's again; inside the writer's transaction.

One database at a time is its zone's: whichever comes replaces the others. A quarantined one stays so until an operator
re-admits it (readmission.py).
"""

from uuid import UUID

from libs.store import merge_sql as sql
from libs.store.merge_records import record_events
from libs.store.merge_transaction import Admission, EventRow
from libs.store.pool import Connection


async def admit(conn: Connection, identity: UUID, zone: str) -> Admission:
    """Return what production knows of a gatherer; a new one is admitted at once, with an event row."""
    found = await conn.fetchrow(sql.FIND_GATHERER, identity)
    if found is None:
        return await _admit_new(conn, identity, zone)
    number, zone, status, detail = found
    if status == "replaced":
        status, detail = "ok", ""
        await _return_replaced(conn, number, zone)
    last = await conn.fetchval(sql.LAST_MERGE_OF, number)
    records = await conn.fetch(sql.READ_CURSORS + " WHERE gatherer = $1", number)
    cursors = {lane: batch_no for _, lane, batch_no in records}
    return Admission(number, zone, status, detail or "", False, last, cursors)


async def _admit_new(conn: Connection, identity: UUID, zone: str) -> Admission:
    is_first = not await conn.fetchval(sql.COUNT_ZONE, zone)
    number = await conn.fetchval(sql.ADMIT_GATHERER, identity, zone)
    kind = "gatherer_admitted" if is_first else "gatherer_new_identity"
    await conn.execute(sql.REPLACE_OTHERS, zone, number)
    await record_events(conn, [EventRow(kind, number, f"zone {zone} identity {identity}")])
    return Admission(number, zone, "ok", "", True, 0, {})


async def _return_replaced(conn: Connection, number: int, zone: str) -> None:
    """A database that another one had replaced is its zone's again."""
    await conn.execute(sql.RETURN_GATHERER, number)
    await conn.execute(sql.REPLACE_OTHERS, zone, number)
    await record_events(conn, [EventRow("gatherer_returned", number, f"zone {zone}")])
