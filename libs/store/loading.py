"""Rows of the archive back into production, each with the merge_no it had.

They go through the table's key: a row that is there already is left as it is, so that loading an object twice, or one
whose rows never went, changes nothing. Numbers below `archive_progress` are not looked at again by the archiver: what
is loaded is not exported a second time.
"""

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from libs.marketdata.binary import COPY_HEADER, COPY_TRAILER, RowCodec
from libs.marketdata.tables import GATHERER_TABLES, LISTEN_RANGES, Table, production_columns
from libs.store.listen_runs import runs_of
from libs.store.pool import AnyConnection

CHUNK_ROWS: Final = 10_000
"""Rows packed at a time: a few megabytes."""


async def load_rows(
    conn: AnyConnection,
    table: Table,
    rows: Sequence[tuple[Any, ...]],
    *,
    gatherers: Mapping[int, int] | None = None,
    into: str = "",
) -> int:
    """Insert rows inside the caller's transaction and return how many were not there yet.

    Args:
        conn: in a transaction; a temporary table of it serves as the way in and goes with it.
        rows: in the order of production_columns(table), as libs.archive.reading gives them.
        gatherers: production's number of a gatherer by the number the rows bear, where they are numbered anew; every
            number of the rows must be in it. None: they keep theirs.
        into: the table to insert into; empty: the table itself. A partition that is not attached yet, for instance.

    Raises:
        KeyError: a row bears a gatherer's number that `gatherers` does not have.
        asyncpg.PostgresError: what the server says; map_store_errors of the caller's makes it the store's.
    """
    if not rows:
        return 0
    stage, columns = f"load_{table.name}", production_columns(table)
    names = ", ".join(f'"{column.name}"' for column in columns)
    kinds = ", ".join(f'"{column.name}" {column.kind}' for column in columns)
    await conn.execute(f"CREATE TEMP TABLE IF NOT EXISTS {stage} ({kinds}) ON COMMIT DROP")
    await conn.copy_to_table(
        stage,
        source=_copy(table, _renumbered(table, rows, gatherers)),
        columns=[column.name for column in columns],
        format="binary",
    )
    status = await conn.execute(
        f"INSERT INTO {into or table.name} ({names}) SELECT {names} FROM {stage} ON CONFLICT DO NOTHING"
    )
    if table is LISTEN_RANGES:
        # Their merges may be joined already, and then only joined ranges of so old a merge are looked at.
        await conn.execute(runs_of(stage))
    await conn.execute(f"TRUNCATE {stage}")
    return int(status.rpartition(" ")[2])


def _renumbered(
    table: Table, rows: Sequence[tuple[Any, ...]], gatherers: Mapping[int, int] | None
) -> Sequence[tuple[Any, ...]]:
    if gatherers is None:
        return rows
    place = [column.name for column in production_columns(table)].index("gatherer")
    return [(*row[:place], gatherers[row[place]], *row[place + 1 :]) for row in rows]


async def _copy(table: Table, rows: Sequence[tuple[Any, ...]]) -> AsyncIterator[bytes]:
    """Yield the binary COPY stream of the rows."""
    codec = _codec(table.name)
    prefix = len(codec.columns).to_bytes(2, "big")
    yield COPY_HEADER
    for start in range(0, len(rows), CHUNK_ROWS):
        packed = map(codec.encode, rows[start : start + CHUNK_ROWS])
        yield prefix + prefix.join(packed)
    yield COPY_TRAILER


@functools.cache
def _codec(table_name: str) -> RowCodec[tuple[Any, ...]]:
    return RowCodec(production_columns(GATHERER_TABLES[table_name]), tuple)
