"""Claims joined to runs: what makes listening answerable for one market without reading every batch of its connection.

A gatherer claims one range a batch and sid, up to twenty a second. Ranges of one sid that touch are joined here into one
row that says what they say together: seq from and to, when the last frame was sent, the widest margin. Joining is
idempotent, so a run may stand beside its parts, beside a run that overlaps it, and be made twice.
"""

from typing import Final, LiteralString

from libs.store.pool import Connection, map_store_errors

MERGES_MIN: Final = 2_000
"""Merges worth a turn: runs should be few, and the ranges of four minutes cost a question little."""
MERGES_MAX: Final = 10_000
"""Merges joined in one transaction at most; a quarter of an hour of a busy production."""

_BOUNDS: LiteralString = """
SELECT p.merge_no AS low, least(w.merge_no, p.merge_no + $1) AS high, w.merge_no AS newest
  FROM listen_runs_progress p, writer_lease w FOR UPDATE OF p
"""
_JOINED: LiteralString = """
INSERT INTO listen_runs (seq_from, seq_to, sent_to, margin, merge_to, sid, connection)
SELECT min(seq_from), max(seq_to), (max(ARRAY[seq_to, sent_to]))[2], max(margin), max(merge_no), sid, connection
  FROM (SELECT *, count(*) FILTER (WHERE seq_from > reached + 1)
                      OVER (PARTITION BY connection, sid ORDER BY seq_from, seq_to ROWS UNBOUNDED PRECEDING) AS island
          FROM (SELECT *, max(seq_to) OVER (PARTITION BY connection, sid ORDER BY seq_from, seq_to
                                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
                  FROM {source}) marked) numbered
 GROUP BY connection, sid, island
"""
_OF_MERGES = _JOINED.format(source="listen_ranges WHERE merge_no > $1 AND merge_no <= $2")
_FORGET: LiteralString = """
DELETE FROM listen_runs WHERE (connection, sid) IN (
    SELECT connection, sid FROM listen_runs GROUP BY connection, sid
    HAVING max(sent_to) < (SELECT dropped_before FROM retention_marks WHERE table_name = 'listen_ranges'))
   AND NOT EXISTS (SELECT FROM archive_reopenings WHERE table_name = 'listen_ranges' AND state = 'open')
"""
_ADVANCE: LiteralString = "UPDATE listen_runs_progress SET merge_no = $1"


async def join_ranges(conn: Connection, *, merges_min: int = MERGES_MIN) -> int:
    """Join the ranges of the next merges; return how many merges are still to be joined, to be called again.

    Args:
        conn: not inside a transaction.
        merges_min: fewer than that many are left for later; 0 counts as 1.

    Raises:
        StoreUnavailable: production is away, or somebody else does it just now; nothing was done.
    """
    with map_store_errors():
        async with conn.transaction():
            await conn.execute("SET LOCAL lock_timeout = '1s'")
            low, high, newest = await conn.fetchrow(_BOUNDS, MERGES_MAX) or (0, 0, 0)
            if newest - low < max(merges_min, 1):
                return 0
            await conn.execute(_OF_MERGES, low, high)
            await conn.execute(_ADVANCE, high)
    return int(newest - high)


async def forget_runs(conn: Connection) -> int:
    """Delete the runs of connections that ended before what retention has dropped; return how many.

    A connection that is heard still keeps all of its runs, for its streams are carried on from their openings.

    Raises:
        StoreUnavailable: production is away.
    """
    with map_store_errors():
        status = await conn.execute(_FORGET)
    return int(str(status).rpartition(" ")[2])


def runs_of(stage: str) -> str:
    """Return the statement that joins the ranges of a staging table: what is loaded bears old numbers of merges."""
    return _JOINED.format(source=stage)
