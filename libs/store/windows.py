"""What the archiver asks of production: windows with rows to export, the rows as sorted CSV, manifests.

Rows are found by merge_no, the number of the writer's transaction, given in commit order: rows above
`archive_progress` are new since the last look, and their windows stand in `archive_pending` until an
object holds them. Both tables change in one transaction, so that a crash forgets no window; noting and
striking off take turns by the lock of the table's row of `archive_progress`.

The windows of a table never overlap, whatever width is set when: a UTC day keeps the width of its first window.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from libs.archive.keys import Window, window_of
from libs.archive.manifest import Manifest
from libs.marketdata.tables import Kind, Table, production_columns, production_key
from libs.marketdata.units import DAY, SECOND
from libs.store.borrowing import borrow
from libs.store.leases import Lease
from libs.store.pages import PLAN_BY_NUMBER
from libs.store.pool import AnyConnection, Pool, map_store_errors

EXPORT_S_MAX: Final = 3600.0
"""Seconds that reading the rows of one window may take."""

_CALENDAR_DAYS: Final = range(2_932_897)
"""The days of 1970 to 9999; what lies outside is nobody's trade and goes by whole days."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One export: `rows` rows with merge_from < merge_no <= merge_to went to the CSV file."""

    merge_from: int
    merge_to: int
    supplement: int
    rows: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A window with rows that no object holds. archived_at: when its last object was recorded, None: it has none."""

    window: Window
    archived_at: int | None


@asynccontextmanager
async def _long_transaction(
    pool: Pool, seconds: float, *, readonly: bool
) -> AsyncIterator[AnyConnection]:
    """One snapshot, in which a statement may take that long: the connection's own limit is made for short ones."""
    async with (
        borrow(pool) as conn,
        conn.transaction(isolation="repeatable_read", readonly=readonly),
    ):
        await conn.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
        yield conn


async def note_pending(
    pool: Pool, table: Table, width: int, export_s_max: float = EXPORT_S_MAX
) -> int:
    """Remember the windows of rows merged since the last call; return how many are pending.

    Args:
        width: microseconds, of windows in days that have none yet.
        export_s_max: seconds that looking through the new rows may take.

    Raises:
        StoreUnavailable: production is away, or another archiver noted windows of this table at the same time.
    """
    async with _long_transaction(pool, export_s_max, readonly=False) as conn:
        done = await _lock_progress(conn, table.name)
        merge_no = await conn.fetchval("SELECT merge_no FROM writer_lease") or 0
        await conn.execute(PLAN_BY_NUMBER)
        rows = await conn.fetch(new_seconds(table), done, merge_no, timeout=export_s_max + 10)
        seconds = [row["second"] for row in rows]
        widths = await _widths(conn, table, {s * SECOND // DAY for s in seconds}, width)
        found = sorted({window_of(s * SECOND, widths[s * SECOND // DAY]) for s in seconds})
        await conn.execute(
            "INSERT INTO archive_pending (table_name, window_from, window_to)"
            " SELECT $1, * FROM unnest($2::bigint[], $3::bigint[]) ON CONFLICT DO NOTHING",
            table.name, [w.start for w in found], [w.end for w in found],
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO archive_progress (table_name, merge_no) VALUES ($1, $2)"
            " ON CONFLICT (table_name) DO UPDATE SET merge_no = excluded.merge_no",
            table.name, merge_no,
        )  # fmt: skip
        count = await conn.fetchval(
            "SELECT count(*) FROM archive_pending WHERE table_name = $1", table.name
        )
    return int(count)


async def _lock_progress(conn: AnyConnection, table_name: str) -> int:
    """Wait for whoever notes or strikes off windows of the table; return up to which merge they were noted."""
    query = "SELECT merge_no FROM archive_progress WHERE table_name = $1 FOR UPDATE"
    return int(await conn.fetchval(query, table_name) or 0)


def new_seconds(table: Table) -> str:
    """Return the query for the seconds since 1970, rounded down, in which rows with $1 < merge_no <= $2 lie."""
    column = table.time_column
    return (
        f"SELECT DISTINCT {column} / {SECOND} - ({column} % {SECOND} < 0)::int AS second FROM {table.name}"
        " WHERE merge_no > $1 AND merge_no <= $2"
    )


async def _widths(conn: AnyConnection, table: Table, days: set[int], width: int) -> dict[int, int]:
    """Return for each day (number since 1970) the width of its windows: of those it has, else `width`."""
    widths = dict.fromkeys(days, DAY)
    known = sorted(day for day in days if day in _CALENDAR_DAYS)
    rows = await conn.fetch(
        "SELECT day, coalesce("
        "(SELECT window_to - window_from FROM archive_manifests"
        " WHERE table_name = $1 AND window_from >= day * $3 AND window_from < (day + 1) * $3 LIMIT 1),"
        "(SELECT window_to - window_from FROM archive_pending"
        " WHERE table_name = $1 AND window_from >= day * $3 AND window_from < (day + 1) * $3 LIMIT 1)"
        ") AS width FROM unnest($2::bigint[]) AS day",
        table.name, known, DAY,
    )  # fmt: skip
    return widths | {row["day"]: row["width"] or width for row in rows}


async def pending_windows(pool: Pool, table: Table) -> list[Pending]:
    """Return the windows with rows to export, oldest first."""
    with map_store_errors():
        rows = await pool.fetch(
            "SELECT p.window_from, p.window_to, (SELECT (extract(epoch FROM max(m.archived_at)) * 1000000)::bigint"
            " FROM archive_manifests m WHERE m.table_name = p.table_name"
            " AND m.window_from = p.window_from AND m.window_to = p.window_to) AS archived_at"
            " FROM archive_pending p WHERE p.table_name = $1 ORDER BY p.window_from",
            table.name,
        )
    return [
        Pending(Window(row["window_from"], row["window_to"]), row["archived_at"]) for row in rows
    ]


async def heard_beyond(pool: Pool, moment: int) -> bool:
    """True when every gatherer that is not quarantined, and at least one, was heard past the moment."""
    with map_store_errors():
        row = await pool.fetchrow(
            "SELECT count(*) AS known, count(*) FILTER (WHERE EXISTS (SELECT FROM listen_ranges r"
            " WHERE r.gatherer = g.gatherer AND r.received_at > $1 AND r.sent_to > $1)) AS beyond"
            " FROM gatherers g WHERE g.status = 'ok'",
            moment,
        )
    return row is not None and row["known"] == row["beyond"] > 0


async def export_csv(
    pool: Pool, table: Table, window: Window, target: Path, export_s_max: float = EXPORT_S_MAX
) -> Exported:
    """Write the window's rows that no object holds yet to a CSV file, sorted by the whole key.

    Args:
        export_s_max: seconds that it may take.

    Raises:
        StoreUnavailable: production is away, or it took longer.
    """
    async with _long_transaction(pool, export_s_max, readonly=True) as conn:
        last = await conn.fetchrow(
            "SELECT coalesce(max(merge_to), 0) AS merge_to, count(*) AS objects FROM archive_manifests"
            " WHERE table_name = $1 AND window_from = $2 AND window_to = $3",
            table.name, window.start, window.end,
        )  # fmt: skip
        assert last is not None
        merge_to = await conn.fetchval("SELECT merge_no FROM writer_lease") or 0
        rows = await copy_window(
            conn, table, window, last["merge_to"], merge_to, target, export_s_max
        )
    return Exported(last["merge_to"], merge_to, last["objects"], rows)


async def copy_window(
    conn: AnyConnection,
    table: Table,
    window: Window,
    merge_from: int,
    merge_to: int,
    target: Path,
    export_s_max: float = EXPORT_S_MAX,
) -> int:
    """COPY the rows with merge_from < merge_no <= merge_to as CSV in the order of the key; return their number."""
    with target.open("wb") as file:
        status = await conn.copy_from_query(
            f"SELECT {_select_list(table)} FROM {table.name} WHERE {table.time_column} BETWEEN $1 AND $2"
            f" AND merge_no > $3 AND merge_no <= $4 ORDER BY {_order(table)}",
            window.start, window.last, merge_from, merge_to,
            output=file, format="csv", timeout=export_s_max + 10,
        )  # fmt: skip
    return int(str(status).rpartition(" ")[2])


def _select_list(table: Table) -> str:
    """Columns as CSV can carry them: ladders as JSON, bytes as hex."""
    shown = []
    for column in production_columns(table):
        match column.kind:
            case Kind.LADDER:
                shown.append(f'array_to_json("{column.name}")')
            case Kind.BYTES:
                shown.append(f"encode(\"{column.name}\", 'hex')")
            case _:
                shown.append(f'"{column.name}"')
    return ", ".join(shown)


def _order(table: Table) -> str:
    """The key, ticker and time first, text by bytes; the rest of the row is a function of it."""
    kinds = {column.name: column.kind for column in production_columns(table)}
    key = production_key(table)
    lead = [name for name in ("ticker", table.time_column) if name in kinds]
    names = [*lead, *(name for name in key if name not in lead)]
    return ", ".join(f'"{n}" COLLATE "C"' if kinds[n] is Kind.TEXT else f'"{n}"' for n in names)


async def record_manifest(pool: Pool, manifest: Manifest, lease: Lease) -> bool:
    """Record that a window was archived and strike it off the pending ones, in one transaction.

    Returns:
        Whether the lease is ours; if not, nothing was changed.

    Raises:
        StoreConflict: the same supplement is recorded already.
    """
    async with borrow(pool) as conn, conn.transaction():
        noted = await _lock_progress(conn, manifest.table)
        if not await lease.holds(conn):
            return False
        await conn.execute(
            "INSERT INTO archive_manifests (table_name, window_from, window_to, supplement, object, rows, bytes,"
            " sha256, time_min, time_max, ticker_min, ticker_max, merge_from, merge_to, schema_version,"
            " pyarrow_version) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16)",
            manifest.table, manifest.window_from, manifest.window_to, manifest.supplement, manifest.object,
            manifest.rows, manifest.bytes, manifest.sha256, manifest.time_min, manifest.time_max,
            manifest.ticker_min, manifest.ticker_max, manifest.merge_from, manifest.merge_to,
            manifest.schema_version, manifest.pyarrow_version,
        )  # fmt: skip
        window = Window(manifest.window_from, manifest.window_to)
        await _strike_off(conn, manifest.table, window, noted, manifest.merge_to)
    return True


async def strike_off(pool: Pool, table: Table, window: Window, merge_to: int, lease: Lease) -> bool:
    """Strike off a pending window that has nothing left to export up to merge_to; False when the lease is lost."""
    async with borrow(pool) as conn, conn.transaction():
        noted = await _lock_progress(conn, table.name)
        if not await lease.holds(conn):
            return False
        await _strike_off(conn, table.name, window, noted, merge_to)
    return True


async def _strike_off(
    conn: AnyConnection, table_name: str, window: Window, noted: int, merge_to: int
) -> None:
    """Delete it, unless windows were noted up to a later merge: then its newer rows may be why it is there."""
    if noted > merge_to:
        return
    await conn.execute(
        "DELETE FROM archive_pending WHERE table_name = $1 AND window_from = $2 AND window_to = $3",
        table_name, window.start, window.end,
    )  # fmt: skip
