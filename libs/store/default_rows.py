"""The alarm figure of partitions: rows that lie where nobody makes partitions, because their time is far from any present.

Native: the rows of the default partition. They are archived like any others, by their time; when their partition is made
they move into it, and as long as they lie in the default one retention never drops them. TimescaleDB has no such
place and makes a chunk of any time: there, rows more than a day off their receipt in production's chunks that no honest
clock asks for: more than a day ahead, or older than retention and than the first gatherer.
"""

from libs.marketdata.units import DAY
from libs.store.partition_plan import DatabaseKind, partitioned_tables
from libs.store.pool import AnyConnection

CHUNKS = """
SELECT hypertable_name AS parent, format('%I.%I', chunk_schema, chunk_name) AS name,
       range_start_integer AS start, range_end_integer AS end
  FROM timescaledb_information.chunks
 WHERE hypertable_schema = 'public'
 ORDER BY hypertable_name, range_start_integer
"""

_OLDEST = f"""
SELECT t.name, coalesce((SELECT dropped_before FROM retention_marks WHERE table_name = t.name),
                        (SELECT (extract(epoch FROM min(admitted_at)) * 1000000)::bigint FROM gatherers) - {DAY}, 0)
  FROM unnest($1::text[]) AS t (name)
"""


async def has_timescale(conn: AnyConnection) -> bool:
    """True when this database has hypertables: the extension was there when it was migrated."""
    found = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"
    )
    return bool(found)


async def count_default_rows(
    conn: AnyConnection, kind: DatabaseKind, now: int = 0
) -> dict[str, int]:
    """Return how many rows lie in each default partition that is not empty: an alarm, never a stop.

    Args:
        now: microseconds; matters on TimescaleDB only, where a gatherer's tables have no such rows.
    """
    names = list(partitioned_tables(kind))
    if await has_timescale(conn):
        return await _count_odd_rows(conn, names, now) if kind == "production" else {}
    query = " UNION ALL ".join(
        f"SELECT '{name}' AS name, count(*) AS rows FROM {name}_default" for name in names
    )
    return {row["name"]: row["rows"] for row in await conn.fetch(query) if row["rows"]}


async def _count_odd_rows(conn: AnyConnection, names: list[str], now: int) -> dict[str, int]:
    """Look into the few chunks of odd times only; those opened again hold what is near its receipt."""
    oldest: dict[str, int] = dict(await conn.fetch(_OLDEST, names))  # type: ignore[arg-type]
    found: dict[str, int] = {}
    for chunk in await conn.fetch(CHUNKS):
        name, start = chunk["parent"], chunk["start"]
        if name not in oldest:
            continue
        if start <= now + DAY and chunk["end"] > oldest[name]:
            continue
        time = partitioned_tables("production")[name].time_column
        rows = await conn.fetchval(
            f"SELECT count(*) FROM {chunk['name']}"
            f" WHERE {time} < received_at - {DAY} OR {time} > received_at + {DAY}"
        )
        if rows:
            found[name] = found.get(name, 0) + rows
    return found
