"""What production knows of its archive: recorded objects, what a gatherer's number means, events."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from libs.archive.keys import Window
from libs.archive.manifest import Gatherer, Manifest
from libs.store.merge_sql import WRITE_EVENT
from libs.store.pool import AnyConnection, Pool, map_store_errors

_COLUMNS: Final = (
    "table_name, window_from, window_to, supplement, object, rows, bytes, sha256, time_min, time_max, ticker_min,"
    " ticker_max, merge_from, merge_to, schema_version, pyarrow_version"
)


async def objects_of(pool: Pool, table: str, window: Window) -> set[str]:
    """Return the names of a window's recorded objects.

    Raises:
        StoreUnavailable: production is away.
    """
    with map_store_errors():
        rows = await pool.fetch(
            "SELECT object FROM archive_manifests WHERE table_name = $1 AND window_from = $2 AND window_to = $3",
            table, window.start, window.end,
        )  # fmt: skip
    return {row["object"] for row in rows}


async def gatherers(pool: Pool) -> tuple[Gatherer, ...]:
    """Return what every number of a gatherer means; StoreUnavailable when production is away."""
    query = "SELECT gatherer, identity::text, zone FROM gatherers ORDER BY gatherer"
    with map_store_errors():
        rows = await pool.fetch(query)
    return tuple(Gatherer(*row) for row in rows)


async def record_event(pool: Pool, kind: str, detail: str) -> None:
    """Record an event that is no gatherer's; StoreUnavailable when production is away."""
    with map_store_errors():
        await pool.execute(WRITE_EVENT, kind, None, detail)


async def has_manifests(pool: Pool) -> bool:
    """True when production has recorded any object; StoreUnavailable when it is away."""
    with map_store_errors():
        return bool(await pool.fetchval("SELECT EXISTS (SELECT FROM archive_manifests)"))


async def read_manifests(pool: Pool, tables: Sequence[str], start: int, end: int) -> list[Manifest]:
    """Return the recorded manifests of windows that touch [start, end) microseconds, in order of table and window.

    They name every gatherer that production knows.

    Raises:
        StoreUnavailable: production is away.
    """
    known = await gatherers(pool)
    with map_store_errors():
        rows = await pool.fetch(
            f"SELECT {_COLUMNS} FROM archive_manifests WHERE table_name = ANY($1) AND window_from < $3 AND window_to > $2"
            " ORDER BY table_name, window_from, supplement",
            list(tables), start, end,
        )  # fmt: skip
    return [manifest_of(dict(row), known) for row in rows]


def manifest_of(row: Mapping[str, Any], known: tuple[Gatherer, ...] = ()) -> Manifest:
    """Return the manifest that a row of archive_manifests was recorded from."""
    values = {name: row[name] for name in _COLUMNS.split(", ")[1:]}
    return Manifest(table=row["table_name"], gatherers=known, **values)


async def insert_manifest(conn: AnyConnection, manifest: Manifest) -> None:
    """Record an object, inside the caller's transaction; StoreConflict when its supplement is recorded already."""
    values = [manifest.table, *(getattr(manifest, name) for name in _COLUMNS.split(", ")[1:])]
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    with map_store_errors():
        await conn.execute(f"INSERT INTO archive_manifests ({_COLUMNS}) VALUES ({places})", *values)
