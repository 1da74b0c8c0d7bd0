"""Partitions: the one place that knows whether a database has hypertables or native range partitions.

Both store the same rows under the same keys. TimescaleDB makes a chunk when a row needs one; native partitions are
made ahead here, and a row that has none waits in the default partition until it is moved out. Either goes whole, under
its own lock, and only when what it holds is proved to be elsewhere.
"""

from dataclasses import dataclass

from libs.marketdata.tables import Table
from libs.store.default_rows import CHUNKS, count_default_rows, has_timescale
from libs.store.dropped import Range, dropped_ranges
from libs.store.errors import StoreUnavailable
from libs.store.partition_plan import (
    DatabaseKind,
    Horizon,
    Partition,
    missing,
    parse_bound,
    partitioned_tables,
    partitions_around,
    render_partitioned,
    width_of,
)
from libs.store.pool import AnyConnection, map_store_errors

__all__ = [
    "DatabaseKind",
    "Ensured",
    "Horizon",
    "Partition",
    "act_as_owner",
    "count_default_rows",
    "ensure_partitions",
    "existing_partitions",
    "has_timescale",
    "render_partitioned",
    "timescale_statements",
]

_OFFERED = """
DO $$
BEGIN
    IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
       AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
       AND current_setting('shared_preload_libraries') LIKE '%timescaledb%' THEN
        CREATE EXTENSION IF NOT EXISTS timescaledb;
    END IF;
END
$$
"""

_OWNER = "SELECT current_user <> 'kd_owner' AND pg_has_role(current_user, 'kd_owner', 'MEMBER')"

_NATIVE = """
SELECT p.relname AS parent, c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
  FROM pg_inherits i
  JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p' AND p.relnamespace = 'public'::regnamespace
  JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r'
 ORDER BY p.relname, c.relname
"""

_MAKE_ONE = """
CREATE TABLE {name} (LIKE {table} INCLUDING ALL);
LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE;
WITH moved AS (DELETE FROM {table}_default WHERE {column} >= {start} AND {column} < {end} RETURNING *)
INSERT INTO {name} SELECT * FROM moved;
ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end});
"""


def timescale_statements() -> tuple[str, ...]:
    """Return what a migration runs first: make the extension where the server is set up for it and lets us."""
    return (_OFFERED,)


async def act_as_owner(conn: AnyConnection) -> None:
    """Become kd_owner until the transaction ends; only it may make and drop partitions."""
    if await conn.fetchval(_OWNER):
        await conn.execute("SET LOCAL ROLE kd_owner")


async def existing_partitions(conn: AnyConnection) -> list[Partition]:
    """Return all partitions or chunks of this database but the default ones; `name` is ready for SQL."""
    if await has_timescale(conn):
        rows = await conn.fetch(CHUNKS)
        return [Partition(r["parent"], r["name"], r["start"], r["end"]) for r in rows]
    found = []
    for row in await conn.fetch(_NATIVE):
        # Without a bound: it is being dropped at this moment.
        bound = parse_bound(row["bound"] or "")
        if bound is not None:
            found.append(Partition(row["parent"], row["name"], *bound))
    return found


@dataclass(frozen=True, slots=True)
class Ensured:
    """What ensure_partitions did, and the alarm figure (default_rows.py) by table."""

    made: tuple[Partition, ...]
    default_rows: dict[str, int]


async def ensure_partitions(
    conn: AnyConnection, kind: DatabaseKind, now: int, horizon: Horizon | None = None
) -> Ensured:
    """Make the partitions around `now` that are missing; rows that waited in the default partition move into them.

    Each table is one transaction, so that a busy one does not keep the others from theirs. Does nothing but count on
    TimescaleDB. Call it at start and every few minutes.

    Raises:
        StoreUnavailable: a table's lock was not to be had within 1 s; the others have theirs. Ask again.
    """
    with map_store_errors():
        if await has_timescale(conn):
            return Ensured((), await count_default_rows(conn, kind, now))
        existing = await existing_partitions(conn)
        made: list[Partition] = []
        busy: StoreUnavailable | None = None
        for table in partitioned_tables(kind).values():
            wanted = partitions_around(table.name, now, width_of(table, kind), horizon or Horizon())
            if not missing(wanted, _of(table, existing)):
                continue
            try:
                with map_store_errors():
                    made += await _make(conn, kind, table, wanted)
            except StoreUnavailable as error:
                busy = error
        if busy is not None:
            raise busy
        return Ensured(tuple(made), await count_default_rows(conn, kind, now))


def _of(table: Table, partitions: list[Partition]) -> list[Partition]:
    return [partition for partition in partitions if partition.table == table.name]


async def _make(
    conn: AnyConnection, kind: DatabaseKind, table: Table, wanted: list[Partition]
) -> list[Partition]:
    """Make what is missing in one transaction. Attaching locks out neither readers nor writers of the other partitions.

    What is missing is found out under the table's lock: another process may have made it a moment ago.
    """
    async with conn.transaction(isolation="read_committed"):
        await act_as_owner(conn)
        await conn.execute("SET LOCAL lock_timeout = '1s'")
        await conn.execute(f"LOCK TABLE ONLY {table.name} IN SHARE UPDATE EXCLUSIVE MODE")
        new = missing(wanted, _of(table, await existing_partitions(conn)))
        if kind == "production":
            # What is in the archive only is made again with its rows in it (reopening.py), never empty.
            gone = await dropped_ranges(conn, [Range(p.table, p.start, p.end) for p in new])
            new = [p for p in new if Range(p.table, p.start, p.end) not in gone]
        script = "".join(
            _MAKE_ONE.format(
                table=table.name,
                column=table.time_column,
                name=partition.name,
                start=partition.start,
                end=partition.end,
            )
            for partition in new
        )
        if script:
            await conn.execute(script)
    return new
