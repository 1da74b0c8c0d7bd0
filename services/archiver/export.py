"""One window of one table: CSV out of production, Parquet, object, read back, manifest. Safe to repeat at any point."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from libs.archive.keys import ObjectKey, Window
from libs.archive.manifest import Manifest, encode_manifest
from libs.archive.objects import ObjectStore
from libs.archive.parquet import PYARROW_VERSION, SCHEMA_VERSION, Written, write_parquet
from libs.marketdata.tables import Table
from libs.store import windows
from libs.store.pool import Pool


async def export_window(
    pool: Pool,
    store: ObjectStore,
    table: Table,
    window: Window,
    fence: Callable[[], Awaitable[None]],
    work_dir: str | None = None,
) -> Manifest | None:
    """Export the rows of a window that no object holds yet; return the manifest, or None when there are none.

    The object is put and read back before its manifest is recorded: a crash between leaves an object that the next
    attempt writes again under the same name. `fence` raises when another archiver is at work: it is asked before the
    object is put, because that one may have written another object of this name, and before the manifest is recorded.

    Raises:
        ArchiveError: the object store refused, or read back something else.
        StoreUnavailable: production is away.
    """
    with tempfile.TemporaryDirectory(prefix="kalshi-data-", dir=work_dir or None) as folder:
        rows, parquet = Path(folder, "rows.csv"), Path(folder, "object.parquet")
        exported = await windows.export_csv(pool, table, window, rows)
        if exported is None:
            await windows.strike_off(pool, table, window)
            return None
        written = await asyncio.to_thread(write_parquet, table, rows, parquet)
        key = ObjectKey(table.name, window, exported.supplement)
        await fence()
        await asyncio.to_thread(store.put, str(key), parquet, written.sha256)
        manifest = manifest_of(key, exported, written)
        await asyncio.to_thread(store.put_small, key.manifest, encode_manifest(manifest))
    await fence()
    await windows.record_manifest(pool, manifest)
    return manifest


def manifest_of(key: ObjectKey, exported: windows.Exported, written: Written) -> Manifest:
    """Say what an object holds."""
    return Manifest(
        table=key.table,
        window_from=key.window.start,
        window_to=key.window.end,
        supplement=key.supplement,
        object=str(key),
        rows=written.rows,
        bytes=written.size_bytes,
        sha256=written.sha256,
        time_min=written.time_min,
        time_max=written.time_max,
        ticker_min=written.ticker_min,
        ticker_max=written.ticker_max,
        merge_from=exported.merge_from,
        merge_to=exported.merge_to,
        schema_version=SCHEMA_VERSION,
        pyarrow_version=PYARROW_VERSION,
    )
