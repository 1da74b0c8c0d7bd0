"""One window of one table: CSV out of production, Parquet, object, read back, manifest. Safe to repeat at any point."""

import asyncio
import tempfile
from pathlib import Path

from libs.archive.keys import ObjectKey, Window
from libs.archive.manifest import Manifest, encode_manifest
from libs.archive.objects import ObjectStore
from libs.archive.parquet import PYARROW_VERSION, SCHEMA_VERSION, Written, write_parquet
from libs.marketdata.tables import Table
from libs.runtime.leasing import LeaseLost, renew_or_end
from libs.store import windows
from libs.store.leases import Lease
from libs.store.pool import Pool


async def export_window(
    pool: Pool,
    store: ObjectStore,
    table: Table,
    window: Window,
    lease: Lease,
    work_dir: str = "",
    export_s_max: float = windows.EXPORT_S_MAX,
) -> Manifest | None:
    """Export the rows of a window that no object holds yet; return the manifest, or None when there are none.

    The object is put and read back before its manifest is recorded: a crash between leaves an object that no manifest
    names. What makes it safe beside another archiver: attempts that hold other rows have other names, and the manifest
    is recorded only under the lease.

    Args:
        work_dir: folder for the files being made; empty: the system's.
        export_s_max: seconds that reading the rows may take.

    Raises:
        ArchiveError: the object store refused, or read back something else.
        LeaseLost: another archiver is at work; nothing was recorded.
        StoreUnavailable: production is away, or the rows took too long.
    """
    with tempfile.TemporaryDirectory(prefix="kalshi-data-", dir=work_dir or None) as folder:
        rows, parquet = Path(folder, "rows.csv"), Path(folder, "object.parquet")
        exported = await windows.export_csv(pool, table, window, rows, export_s_max)
        if exported.rows == 0:
            _insist(await windows.strike_off(pool, table, window, exported.merge_to, lease), lease)
            return None
        written = await asyncio.to_thread(write_parquet, table, rows, parquet)
        key = ObjectKey(table.name, window, exported.supplement, exported.merge_to)
        await renew_or_end(lease)
        await asyncio.to_thread(store.put, str(key), parquet, written.sha256)
        manifest = manifest_of(key, exported, written)
        await asyncio.to_thread(store.put_small, key.manifest, encode_manifest(manifest))
    _insist(await windows.record_manifest(pool, manifest, lease), lease)
    return manifest


def _insist(is_ours: bool, lease: Lease) -> None:
    if not is_ours:
        raise LeaseLost(f"the lease {lease.name} was taken by another process")


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
