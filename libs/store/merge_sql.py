"""The statements of a merge transaction, made from the table descriptions.

Rows go straight into a table whose key has no reason to object; where a key may hold them already they go to a staging
table first and from there in with ON CONFLICT DO NOTHING. Look-ups are LATERAL with LIMIT 1, so that the planner, which
knows nothing of a staging table's size, can only use the key's index, partition by partition.
"""

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from libs.marketdata.binary import COPY_HEADER, COPY_TRAILER
from libs.marketdata.tables import GATHERER_TABLES, Table, production_columns
from libs.marketdata.units import DAY
from libs.store.merge_transaction import CONTENT_TABLES, TRADE_CONTENT, Segment
from libs.store.partition_plan import BIGINT_MAX, BIGINT_MIN

TRADE_TIME_SPAN = DAY
"""How far the times of two copies of one trade may lie apart, microseconds."""

_count = struct.Struct("!h")
_merged = struct.Struct("!ihiq")
_batch = struct.Struct("!i16siq")


@dataclass(frozen=True, slots=True)
class MergeStatements:
    """SQL and COPY parameters of one table."""

    name: str
    stage: str
    columns: tuple[str, ...]
    create_stage: str
    insert: str
    present: str | None
    """Staged identities that an earlier transaction merged ($1: this merge_no); None where nobody asks."""


@functools.cache
def statements(table_name: str) -> MergeStatements:
    """Return the statements of one table of facts."""
    table = GATHERER_TABLES[table_name]
    stage = f"stage_{table_name}"
    columns = tuple(column.name for column in production_columns(table))
    names = ", ".join(f'"{name}"' for name in columns)
    return MergeStatements(
        name=table_name,
        stage=stage,
        columns=columns,
        create_stage=_create_stage(stage, table),
        insert=f"INSERT INTO {table_name} ({names}) SELECT {names} FROM {stage}"
        " ON CONFLICT DO NOTHING",
        present=_present(stage, table),
    )


def _create_stage(stage: str, table: Table) -> str:
    columns = ", ".join(f'"{column.name}" {column.kind}' for column in production_columns(table))
    return f"CREATE TEMP TABLE IF NOT EXISTS {stage} ({columns}) ON COMMIT DELETE ROWS"


def _present(stage: str, table: Table) -> str | None:
    if table.name not in CONTENT_TABLES:
        return None
    if table.name == "trades":
        return _present_trades(stage)
    key = ", ".join(f"s.{name}" for name in table.identity)
    same = " AND ".join(f"t.{name} = s.{name}" for name in table.identity)
    return (
        f"SELECT {key} FROM {stage} s CROSS JOIN LATERAL"
        f" (SELECT 1 FROM {table.name} t WHERE {same} AND t.merge_no < $1 LIMIT 1) found"
    )


def _present_trades(stage: str) -> str:
    """Trades are looked up by trade_id alone, near their time; both contents come back for comparison.

    The span is cut off where bigint ends: an exchange may say any time.
    """
    staged = ", ".join(f"s.{name}" for name in TRADE_CONTENT)
    kept = ", ".join(f"found.{name}" for name in TRADE_CONTENT)
    return (
        f"SELECT s.trade_id, {kept}, {staged} FROM {stage} s CROSS JOIN LATERAL"
        f" (SELECT {', '.join(TRADE_CONTENT)} FROM trades t WHERE t.trade_id = s.trade_id"
        f" AND t.exchange_ts BETWEEN greatest(s.exchange_ts, {BIGINT_MIN + TRADE_TIME_SPAN}) - {TRADE_TIME_SPAN}"
        f" AND least(s.exchange_ts, {BIGINT_MAX - TRADE_TIME_SPAN}) + {TRADE_TIME_SPAN} AND t.merge_no < $1 LIMIT 1) found"
    )


def copy_bytes(table_name: str, segments: Sequence[Segment], merge_no: int) -> bytes:
    """Return the binary COPY stream of packed rows with what production adds to them."""
    table = GATHERER_TABLES[table_name]
    prefix = _count.pack(len(production_columns(table)))
    parts = [COPY_HEADER]
    for gatherer, lane, batch_no, payloads in segments:
        suffix = _merged.pack(2, gatherer, 8, merge_no)
        if table.by_batch:
            suffix = _batch.pack(16, lane.bytes, 8, batch_no) + suffix
        parts += [prefix, (suffix + prefix).join(payloads), suffix]
    parts.append(COPY_TRAILER)
    return b"".join(parts)


LOCK_LEASE = "SELECT epoch, holder, merge_no FROM writer_lease FOR UPDATE"

TAKE_LEASE = """
UPDATE writer_lease SET epoch = epoch + 1, holder = $1, expires_at = clock_timestamp() + $2,
    merge_no = greatest(merge_no, $3, (SELECT coalesce(max(merge_no), 0) FROM merges))
WHERE holder IS NULL OR expires_at < clock_timestamp() OR holder = $4
RETURNING epoch, merge_no
"""

FIRST_LEASE = "INSERT INTO writer_lease (one) VALUES (true) ON CONFLICT DO NOTHING"

COMMIT_LEASE = "UPDATE writer_lease SET merge_no = $1, expires_at = clock_timestamp() + $2"
RENEW_LEASE = "UPDATE writer_lease SET expires_at = clock_timestamp() + $1"
RELEASE_LEASE = "UPDATE writer_lease SET expires_at = clock_timestamp()"

READ_CURSORS = "SELECT gatherer, lane, batch_no FROM sync_cursors"

WRITE_CURSORS = """
INSERT INTO sync_cursors (gatherer, lane, batch_no, family, merged_at)
SELECT gatherer, lane, batch_no, family, clock_timestamp()
FROM unnest($1::smallint[], $2::uuid[], $3::bigint[], $4::text[]) AS u(gatherer, lane, batch_no, family)
ON CONFLICT (gatherer, lane) DO UPDATE
   SET batch_no = greatest(sync_cursors.batch_no, excluded.batch_no), merged_at = excluded.merged_at
"""

WRITE_MERGE = """
INSERT INTO merges (merge_no, rows_read, rows_inserted) VALUES ($1, $2, $3)
RETURNING (extract(epoch FROM merged_at) * 1000000)::bigint
"""

FORGET_MERGES = """
DELETE FROM merges WHERE merge_no IN (
    SELECT merge_no FROM merges WHERE merged_at < clock_timestamp() - $1::interval
       AND merge_no < (SELECT max(merge_no) FROM merges) ORDER BY merged_at LIMIT 10000)
"""

WRITE_COVERAGE = """
INSERT INTO coverage (merge_no, table_name, minute, gatherers, is_late, facts)
VALUES ($1, $2, $3, $4, $5, $6)
"""

WRITE_LAG = """
INSERT INTO merge_lags (merge_no, gatherer, table_name, minute, lag_max, buckets, counts)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

WRITE_CONFLICT = """
INSERT INTO conflicts (merge_no, table_name, key, kept, refused) VALUES ($1, $2, $3, $4, $5)
"""

WRITE_EVENT = """
INSERT INTO operational_events (at, kind, gatherer, detail) VALUES (clock_timestamp(), $1, $2, $3)
"""

FIND_GATHERER = "SELECT gatherer, zone, status, detail FROM gatherers WHERE identity = $1"
COUNT_ZONE = "SELECT count(*) FROM gatherers WHERE zone = $1"
ADMIT_GATHERER = """
INSERT INTO gatherers (identity, zone, status, admitted_at) VALUES ($1, $2, 'ok', clock_timestamp())
RETURNING gatherer
"""
REPLACE_OTHERS = """
UPDATE gatherers SET status = 'replaced', detail = 'by gatherer ' || $2::smallint
 WHERE zone = $1 AND gatherer <> $2 AND status = 'ok'
"""
RETURN_GATHERER = "UPDATE gatherers SET status = 'ok', detail = NULL WHERE gatherer = $1"
STATUS_OF = "SELECT status FROM gatherers WHERE gatherer = $1"
QUARANTINE = "UPDATE gatherers SET status = 'quarantined', detail = $2 WHERE gatherer = $1"
READMIT = "UPDATE gatherers SET status = 'ok', detail = NULL WHERE gatherer = $1"

COPY_CURSORS = """
WITH copy AS MATERIALIZED (SELECT clock_timestamp() AS at)
INSERT INTO sync_cursor_copies (copied_at, merge_no, gatherer, lane, batch_no)
SELECT copy.at, $1, gatherer, lane, batch_no FROM copy, sync_cursors
"""

LAST_COPY = (
    "SELECT extract(epoch FROM clock_timestamp() - max(copied_at))::float8 FROM sync_cursor_copies"
)

RELEASABLE = """
SELECT gatherer, lane, batch_no, merge_no FROM sync_cursor_copies WHERE copied_at =
    (SELECT max(copied_at) FROM sync_cursor_copies WHERE copied_at <= clock_timestamp() - $1::interval)
"""

FORGET_COPIES = """
DELETE FROM sync_cursor_copies WHERE copied_at <
    (SELECT max(copied_at) FROM sync_cursor_copies WHERE copied_at <= clock_timestamp() - $1::interval)
"""
