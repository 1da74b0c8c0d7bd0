"""BRIN summaries, kept up with the writers: what makes rows findable by batch_id (or merge_no) while they are new.

A page range without a summary belongs to every search. The server summarises on its own only when autovacuum comes by
(once a minute) and forgets requests beyond 256, so that behind a burst every page of rows costs a scan of the whole
burst: measured with 1.5M rows behind, 3,000 rows/s read instead of 150,000. Each range is summarised once; repeating it
where nothing is new costs a look at the range map.
"""

from typing import Final

import asyncpg

from libs.store.partitions import act_as_owner
from libs.store.pool import AnyConnection, map_store_errors

PAGES_MIN: Final = 32
"""Pages a table has grown by before it is worth it: one range of our indexes."""

GATHERER_COLUMNS: Final = ("batch_id", "exchange_ts")
"""What a gatherer's rows are found by: their batch, and trades of a repair by their time."""

_TABLES = """
select i.indexrelid::bigint as index, pg_relation_size(i.indrelid) / current_setting('block_size')::bigint as pages
from pg_index i
join pg_class x on x.oid = i.indexrelid and x.relkind = 'i'
join pg_am on pg_am.oid = x.relam and pg_am.amname = 'brin'
join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] and a.attname = any($1::text[])
"""

_SUMMARIZE = "select brin_summarize_new_values($1::oid::regclass)"

_BUSY_OR_GONE = (
    asyncpg.LockNotAvailableError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedObjectError,
)


class Summaries:
    """Summarises what is new since last time, in all tables, partitions and chunks with a BRIN index on these columns.

    Args of the constructor: those of a gatherer's database unless given; `merge_no` for production.
    """

    def __init__(self, *columns: str) -> None:
        self._columns = columns or GATHERER_COLUMNS
        self._pages: dict[int, int] = {}

    async def keep_up(self, conn: AnyConnection) -> int:
        """Summarise every table that grew by a range; return the number of ranges done. Call it every second.

        A table that is locked just now is left for the next time; writers and readers are never held up.

        Args:
            conn: not inside a transaction; of a user that may act as the tables' owner.

        Raises:
            StoreUnavailable: the database is away.
            StoreRefused: this user does not own the tables.
        """
        done, seen = 0, {}
        with map_store_errors():
            for row in await conn.fetch(_TABLES, self._columns):
                index, pages = row["index"], row["pages"] or 0
                known = self._pages.get(index, 0)
                if pages - known >= PAGES_MIN:
                    ranges = await _summarize(conn, index)
                    known = known if ranges is None else pages
                    done += ranges or 0
                seen[index] = known
        self._pages = seen
        return done


async def _summarize(conn: AnyConnection, index: int) -> int | None:
    """Summarise one index in a transaction of its own; None when the table is busy or gone."""
    try:
        async with conn.transaction():
            await act_as_owner(conn)
            await conn.execute("set local lock_timeout = '100ms'")
            return int(await conn.fetchval(_SUMMARIZE, index))
    except _BUSY_OR_GONE:
        return None
