"""One window of one table: CSV out of production, Parquet, object, read back, manifest. Safe to repeat at any point."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from libs.archive.keys import ObjectKey, Window
from libs.archive.manifest import Gatherer, Manifest, Superseded, encode_manifest
from libs.archive.objects import ObjectStore
from libs.archive.parquet import PYARROW_VERSION, SCHEMA_VERSION, Written, write_parquet
from libs.archive.superseding import set_aside, unrecorded
from libs.marketdata.tables import Table
from libs.runtime.leasing import LeaseLost, renew_or_end
from libs.store import archive_records, windows
from libs.store.leases import Lease
from libs.store.pool import Pool
from libs.telemetry.logging import get_logger

log = get_logger(__name__)


def _unheard(_: Superseded) -> None:
    return


async def export_window(
    pool: Pool,
    store: ObjectStore,
    table: Table,
    window: Window,
    lease: Lease,
    work_dir: str = "",
    export_s_max: float = windows.EXPORT_S_MAX,
    on_superseded: Callable[[Superseded], None] = _unheard,
) -> Manifest | None:
    """Export the rows of a window that no object holds yet; return the manifest, or None when there are none.

    The object is put and read back before its manifest is recorded: a crash between leaves what production does not
    know, and so does a production that was restored. It is set aside before anything is put, so that the bucket shows
    one history. What makes it safe beside another archiver: attempts that hold other rows have other names, and the
    manifest is recorded only under the lease.

    Args:
        work_dir: folder for the files being made; empty: the system's. export_s_max: seconds that reading may take.
        on_superseded: hears of everything that was set aside.

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
        manifest = manifest_of(key, exported, written, await archive_records.gatherers(pool))
        for note in await set_others_aside(pool, store, key, written.sha256, lease):
            on_superseded(note)
        await asyncio.to_thread(_put, store, key, parquet, manifest)
    _insist(await windows.record_manifest(pool, manifest, lease), lease)
    return manifest


async def set_others_aside(
    pool: Pool, store: ObjectStore, mine: ObjectKey, sha256: str, lease: Lease
) -> list[Superseded]:
    """Set aside what the store has of this window and production does not know; an event row tells of each.

    An object that is byte for byte what is about to be put stays: its record is all that was missing.

    Raises:
        ArchiveError: the store refused. StoreUnavailable: production is away.
        LeaseLost: another archiver is at work; what it puts is not ours to judge.
    """
    await renew_or_end(lease)
    # First what is there, then what is recorded: whatever was put in between is not looked at.
    found = await asyncio.to_thread(unrecorded, store, mine.table, mine.window, ())
    recorded = await archive_records.objects_of(pool, mine.table, mine.window)
    notes = []
    for key in (key for key in found if str(key) not in recorded):
        if key == mine and await asyncio.to_thread(_is_there, store, mine, sha256):
            continue
        await renew_or_end(lease)
        # First the event: a crash after it tells of it twice, the other way round it would be silent.
        await archive_records.record_event(pool, "archive_superseded", str(key))
        note = await asyncio.to_thread(set_aside, store, key)
        log.warning("archive_superseded", table=mine.table, object=str(key), now=note.object)
        notes.append(note)
    return notes


def _put(store: ObjectStore, key: ObjectKey, parquet: Path, manifest: Manifest) -> None:
    store.put(str(key), parquet, manifest.sha256)
    store.put_small(key.manifest, encode_manifest(manifest))


def _is_there(store: ObjectStore, key: ObjectKey, sha256: str) -> bool:
    return str(key) in set(store.names(key.folder)) and store.sha256(str(key)) == sha256


def _insist(is_ours: bool, lease: Lease) -> None:
    if not is_ours:
        raise LeaseLost(f"the lease {lease.name} was taken by another process")


def manifest_of(
    key: ObjectKey, exported: windows.Exported, written: Written, known: tuple[Gatherer, ...]
) -> Manifest:
    """Say what an object holds, and whom production's numbers of gatherers mean."""
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
        gatherers=known,
    )
