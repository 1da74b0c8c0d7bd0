"""Rows of objects that were set aside, merged through the key: they may be the only copies of what a restore lost.

It is a transaction numbered like any other, as re-admitting a gatherer is: the writer that runs meets a changed history
and reads its cursors again, and the archiver finds the rows as late ones of their windows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from libs.archive.manifest import Gatherer
from libs.marketdata.tables import TRADES, Table, production_columns
from libs.store import merge_sql as sql
from libs.store.dropped import insist_merge_open
from libs.store.loading import load_rows
from libs.store.merge_errors import RowsRefused
from libs.store.merge_records import record_events
from libs.store.merge_transaction import EventRow
from libs.store.partitions import act_as_owner
from libs.store.pool import Connection, map_store_errors

_NUMBERS: Final = "SELECT identity::text, gatherer FROM gatherers"
_ADD: Final = """
INSERT INTO gatherers (identity, zone, status, detail) VALUES ($1, $2, 'replaced', 'known from the archive only')
RETURNING gatherer
"""
_KNOWN_TRADES: Final = f"""
SELECT s.trade_id FROM unnest($1::text[], $2::bigint[]) AS s(trade_id, at)
 WHERE EXISTS (SELECT FROM trades t WHERE t.trade_id = s.trade_id
       AND t.exchange_ts BETWEEN s.at - {sql.TRADE_TIME_SPAN} AND s.at + {sql.TRADE_TIME_SPAN})
"""


async def merge_superseded(
    conn: Connection,
    table: Table,
    known: Sequence[Gatherer],
    rows_of: Iterable[list[tuple[Any, ...]]],
    name: str,
) -> tuple[int, int]:
    """Merge the rows of one object that was set aside; return how many it has and how many production did not have.

    Args:
        known: whom the numbers of gatherers in its rows mean.
        name: the object's, for the event row.

    Raises:
        RowsRefused: its window was dropped, or a row's gatherer is unknown; nothing was written.
        StoreUnavailable: production is away.
    """
    read = inserted = 0
    with map_store_errors():
        async with conn.transaction():
            await act_as_owner(conn)
            await conn.execute("SET LOCAL statement_timeout = 0")
            lease = await conn.fetchrow(sql.LOCK_LEASE)
            merge_no = (lease["merge_no"] if lease else 0) + 1
            numbers = await _numbers(conn, known)
            for rows in rows_of:
                read += len(rows)
                fresh = await _unknown_trades(conn, rows) if table.name == "trades" else rows
                inserted += await _insert(conn, table, fresh, merge_no, numbers)
            if inserted:
                await insist_merge_open(conn, table.name, merge_no)
                await conn.execute(sql.WRITE_MERGE, merge_no, read, inserted)
                await conn.execute("UPDATE writer_lease SET merge_no = $1", merge_no)
                detail = f"{name}: {inserted} of {read} rows"
                await record_events(conn, [EventRow("archive_superseded_merged", None, detail)])
    return read, inserted


async def _numbers(conn: Connection, known: Sequence[Gatherer]) -> dict[int, int]:
    """Return production's number for each of the object's; one that production never met gets a number of its own."""
    found = {row["identity"]: row["gatherer"] for row in await conn.fetch(_NUMBERS)}
    for one in known:
        if one.identity not in found:
            found[one.identity] = await conn.fetchval(_ADD, UUID(one.identity), one.zone)
    return {one.gatherer: found[one.identity] for one in known}


async def _insert(
    conn: Connection,
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    merge_no: int,
    numbers: Mapping[int, int],
) -> int:
    last = production_columns(table)[-1].name
    assert last == "merge_no"
    renumbered = [(*row[:-1], merge_no) for row in rows]
    try:
        return await load_rows(conn, table, renumbered, gatherers=numbers)
    except KeyError as error:
        raise RowsRefused(f"gatherer: nothing says who number {error} is") from error


async def _unknown_trades(
    conn: Connection, rows: Sequence[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Leave out trades that production has at another moment of the same day: a trade is its trade_id."""
    names = [column.name for column in production_columns(TRADES)]
    trade_id, at = names.index("trade_id"), names.index("exchange_ts")
    found = await conn.fetch(_KNOWN_TRADES, [r[trade_id] for r in rows], [r[at] for r in rows])
    known = {row["trade_id"] for row in found}
    return [row for row in rows if row[trade_id] not in known]
