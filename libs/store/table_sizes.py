"""How many rows and bytes each table has, without counting them: from the server's own figures and a look at few pages.

Bytes are exact. Rows of a small table are counted; of a large one they are its pages times the density that the server's
statistics, or else its first pages, show. Statistics that a crash has lost are not asked. Partitions, chunks and chunks
of columns count as their table.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, LiteralString, NamedTuple

from libs.store.partitions import has_timescale
from libs.store.pool import AnyConnection, map_store_errors

SAMPLED_PAGES: Final = 32
"""Pages of a table or partition that are looked into."""
CHUNKS_AT_ONCE: Final = 100

_LEAVES: LiteralString = """
select coalesce(p.relname, c.relname)::text as table_name, c.oid::bigint as leaf,
       format('%I.%I', n.nspname, c.relname) as name, p.relkind::text as parent_kind,
       coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::bigint as pages, c.relpages::bigint as
       known_pages, c.reltuples::float8 as known_rows, coalesce(pg_total_relation_size(c.oid), 0) as bytes
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_inherits i on i.inhrelid = c.oid
left join pg_class p on p.oid = i.inhparent
where c.relkind = 'r' and 'public' in (n.nspname, (select nspname from pg_namespace where oid = p.relnamespace))
  and has_table_privilege(coalesce(p.oid, c.oid), 'SELECT')
"""
_COLUMNS: LiteralString = """
select format('%I.%I', c.schema_name, c.table_name) as name, s.numrows_pre_compression as rows,
       coalesce(pg_total_relation_size(format('%I.%I', k.schema_name, k.table_name)::regclass), 0) as bytes
from _timescaledb_catalog.chunk c
join _timescaledb_catalog.chunk k on k.id = c.compressed_chunk_id
join _timescaledb_catalog.compression_chunk_size s on s.chunk_id = c.id
"""


@dataclass(frozen=True, slots=True)
class TableSize:
    """Rows and bytes of a table with its indexes; is_exact: the rows were counted."""

    rows: int
    bytes: int
    is_exact: bool


class Leaf(NamedTuple):
    """A table, partition or chunk: where its rows are; known_*: by the server's statistics, rows -1: never looked at."""

    table: str
    leaf: int
    name: str
    parent_kind: str | None
    pages: int
    known_pages: int
    known_rows: float
    bytes: int

    @property
    def is_sampled(self) -> bool:
        """True when its first pages are looked into."""
        is_unknown = self.known_rows < 0 or self.known_pages == 0
        return self.pages > 0 and (self.pages <= SAMPLED_PAGES or is_unknown)

    def rows(self, sampled: int | None) -> int:
        """Return how many rows it has; `sampled`: those of its first pages."""
        if self.is_sampled:
            return round((sampled or 0) * max(1.0, self.pages / SAMPLED_PAGES))
        if not self.known_pages:
            return 0
        return round(max(self.known_rows, 0.0) / self.known_pages * self.pages)


async def read_table_sizes(conn: AnyConnection) -> dict[str, TableSize]:
    """Return the size of every table that this user may read, by name.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        leaves = [Leaf(*row) for row in await conn.fetch(_LEAVES)]
        columns: dict[str, tuple[int, int]] = {}
        if await has_timescale(conn):
            columns = {row[0]: (row[1], row[2]) for row in await conn.fetch(_COLUMNS)}
        sampled = await _sample(conn, [leaf for leaf in leaves if leaf.is_sampled])
    return _sum(leaves, sampled, columns)


def _sum(
    leaves: Iterable[Leaf], sampled: Mapping[int, int], columns: Mapping[str, tuple[int, int]]
) -> dict[str, TableSize]:
    sizes: dict[str, TableSize] = {}
    for leaf in leaves:
        so_far = sizes.get(leaf.table, TableSize(0, 0, True))
        packed_rows, packed_bytes = columns.get(leaf.name, (0, 0))
        is_exact = leaf.pages <= SAMPLED_PAGES and not packed_rows
        sizes[leaf.table] = TableSize(
            so_far.rows + leaf.rows(sampled.get(leaf.leaf)) + packed_rows,
            so_far.bytes + leaf.bytes + packed_bytes,
            so_far.is_exact and is_exact,
        )
    return dict(sorted(sizes.items()))


async def _sample(conn: AnyConnection, leaves: Iterable[Leaf]) -> dict[int, int]:
    """Count the rows in the first pages of each; native partitions by their table, which is what grants speak of."""
    partitioned: set[str] = set()
    alone: dict[str, list[Leaf]] = defaultdict(list)
    for leaf in leaves:
        if leaf.parent_kind == "p":
            partitioned.add(leaf.table)
        else:
            alone[leaf.table].append(leaf)
    found: dict[int, int] = {}
    where = f"where ctid < '({SAMPLED_PAGES},0)'"
    for table in sorted(partitioned):
        query = f'select tableoid::bigint, count(*) from "{table}" {where} group by 1'
        found |= {row[0]: row[1] for row in await conn.fetch(query)}
    own = [leaf for group in alone.values() for leaf in group]
    for start in range(0, len(own), CHUNKS_AT_ONCE):
        query = " union all ".join(
            f"select {leaf.leaf}::bigint, count(*) from only {leaf.name} {where}"
            for leaf in own[start : start + CHUNKS_AT_ONCE]
        )
        found |= {row[0]: row[1] for row in await conn.fetch(query)}
    return found
