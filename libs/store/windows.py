"""What the archiver asks of production: windows with rows to export, the rows as sorted CSV, manifests.

Rows are found by merge_no, the number of the writer's transaction, given in commit order: rows above
`archive_progress` are new since the last look, and their windows stand in `archive_pending` until an
object holds them. Both tables change in one transaction, so that a crash forgets no window.
"""

from dataclasses import dataclass
from pathlib import Path

from libs.archive.keys import Window
from libs.archive.manifest import Manifest
from libs.marketdata.tables import Kind, Table, production_columns, production_key
from libs.store.pool import AnyConnection, Pool, map_store_errors


@dataclass(frozen=True, slots=True)
class Exported:
    """One export: rows with merge_from < merge_no <= merge_to went to the CSV file."""

    merge_from: int
    merge_to: int
    supplement: int


async def note_pending(pool: Pool, table: Table, width: int) -> int:
    """Remember the windows (of `width` microseconds) of rows merged since the last call; return how many are pending."""
    with map_store_errors():
        async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read"):
            merge_no = await conn.fetchval("SELECT merge_no FROM writer_lease")
            done = await conn.fetchval(
                "SELECT merge_no FROM archive_progress WHERE table_name = $1", table.name
            )
            await conn.execute(
                f"INSERT INTO archive_pending (table_name, window_from, window_to)"
                f" SELECT DISTINCT $1, {_start(table)}, {_start(table)} + $2::bigint FROM {table.name}"
                f" WHERE merge_no > $3 AND merge_no <= $4 ON CONFLICT DO NOTHING",
                table.name, width, done or 0, merge_no or 0,
            )  # fmt: skip
            await conn.execute(
                "INSERT INTO archive_progress (table_name, merge_no) VALUES ($1, $2)"
                " ON CONFLICT (table_name) DO UPDATE SET merge_no = excluded.merge_no",
                table.name, merge_no or 0,
            )  # fmt: skip
            count = await conn.fetchval(
                "SELECT count(*) FROM archive_pending WHERE table_name = $1", table.name
            )
    return int(count)


def _start(table: Table) -> str:
    return f"{table.time_column} - mod({table.time_column}, $2::bigint)"


async def pending_windows(pool: Pool, table: Table) -> list[tuple[Window, bool]]:
    """Return the windows with rows to export, oldest first, each with whether an object of it exists already."""
    with map_store_errors():
        rows = await pool.fetch(
            "SELECT p.window_from, p.window_to, EXISTS (SELECT FROM archive_manifests m WHERE m.table_name = p.table_name"
            " AND m.window_from = p.window_from AND m.window_to = p.window_to) AS known"
            " FROM archive_pending p WHERE p.table_name = $1 ORDER BY p.window_from",
            table.name,
        )
    return [(Window(row["window_from"], row["window_to"]), row["known"]) for row in rows]


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


async def export_csv(pool: Pool, table: Table, window: Window, target: Path) -> Exported | None:
    """Write the window's rows that no object holds yet to a CSV file, sorted by the whole key; None: there are none."""
    with map_store_errors():
        async with (
            pool.acquire() as conn,
            conn.transaction(isolation="repeatable_read", readonly=True),
        ):
            last = await conn.fetchrow(
                "SELECT max(merge_to) AS merge_to, count(*) AS objects FROM archive_manifests"
                " WHERE table_name = $1 AND window_from = $2 AND window_to = $3",
                table.name, window.start, window.end,
            )  # fmt: skip
            merge_from = (last["merge_to"] if last else None) or 0
            merge_to = await conn.fetchval("SELECT merge_no FROM writer_lease")
            rows = await copy_window(conn, table, window, merge_from, merge_to, target)
    if rows == 0:
        return None
    return Exported(merge_from, merge_to, last["objects"] if last else 0)


async def copy_window(
    conn: AnyConnection, table: Table, window: Window, merge_from: int, merge_to: int, target: Path
) -> int:
    """COPY the rows with merge_from < merge_no <= merge_to as CSV in the order of the key; return their number."""
    with target.open("wb") as file:
        status = await conn.copy_from_query(
            f"SELECT {_select_list(table)} FROM {table.name} WHERE {table.time_column} >= $1"
            f" AND {table.time_column} < $2 AND merge_no > $3 AND merge_no <= $4 ORDER BY {_order(table)}",
            window.start, window.end, merge_from, merge_to, output=file, format="csv", timeout=3600,
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


async def record_manifest(pool: Pool, manifest: Manifest) -> None:
    """Record that a window was archived and strike it off the pending ones, in one transaction.

    Raises:
        StoreConflict: another archiver recorded the same object.
    """
    with map_store_errors():
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute(
                "INSERT INTO archive_manifests (table_name, window_from, window_to, supplement, object, rows, bytes,"
                " sha256, time_min, time_max, ticker_min, ticker_max, merge_from, merge_to, schema_version,"
                " pyarrow_version) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16)",
                manifest.table, manifest.window_from, manifest.window_to, manifest.supplement, manifest.object,
                manifest.rows, manifest.bytes, manifest.sha256, manifest.time_min, manifest.time_max,
                manifest.ticker_min, manifest.ticker_max, manifest.merge_from, manifest.merge_to,
                manifest.schema_version, manifest.pyarrow_version,
            )  # fmt: skip
            await _strike_off(
                conn, manifest.table, Window(manifest.window_from, manifest.window_to)
            )


async def strike_off(pool: Pool, table: Table, window: Window) -> None:
    """Strike off a pending window that has nothing left to export."""
    with map_store_errors():
        async with pool.acquire() as conn:
            await _strike_off(conn, table.name, window)


async def _strike_off(conn: AnyConnection, table_name: str, window: Window) -> None:
    await conn.execute(
        "DELETE FROM archive_pending WHERE table_name = $1 AND window_from = $2 AND window_to = $3",
        table_name, window.start, window.end,
    )  # fmt: skip
