"""`archive export`: recorded windows are written out of production again, and must be the bytes that were recorded."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

from libs.archive.catalogue import Selection
from libs.archive.keys import ObjectKey, Window
from libs.archive.manifest import Manifest, encode_manifest
from libs.archive.objects import ObjectStore
from libs.archive.parquet import PYARROW_VERSION, write_parquet
from libs.marketdata.tables import GATHERER_TABLES
from libs.store import archive_records, windows
from libs.store.borrowing import borrow
from libs.store.pool import Pool, open_pool
from libs.store.schema import check_level
from services.archiver.command_show import Output, new_table
from services.archiver.settings import ArchiverSettings, Settings

MEANINGS: Final = {
    "identical": "written again, byte for byte what was recorded",
    "filled": "the archive missed it: put again, with its manifest",
    "there": "the archive has it, nothing was written (--to writes and compares)",
    "gone": "production no longer has its rows; only the archive has them",
    "missing": "production no longer has its rows, and the archive misses it",
    "differs": "written again, other bytes than were recorded",
    "archive differs": "written again as recorded, but the archive holds other bytes",
    "kept": "the target has another file of this name, which was left as it is",
}
FAULTS: Final = frozenset({"missing", "differs", "archive differs", "kept"})


class Result(NamedTuple):
    """What became of one object: a word of MEANINGS, and what explains it."""

    object: str
    state: str
    detail: str = ""


async def export_again(
    settings: Settings,
    store: ObjectStore,
    selection: Selection,
    target: ObjectStore | None,
    out: Output,
) -> int:
    """Write every recorded object of a part of the archive again; 1 when one is not what was recorded.

    Args:
        target: where to; None: into the archive itself, and only what it misses.

    Raises:
        StoreUnavailable: production is away. ArchiveError: the store or the target refused.
    """
    results: list[Result] = []
    production = settings.production.target()
    async with open_pool(production, wait=False, application="kalshi-data archive") as pool:
        async with borrow(pool) as conn:
            await check_level(conn, "production")
        manifests = await archive_records.read_manifests(
            pool, tuple(selection.tables or GATHERER_TABLES), selection.start, selection.end
        )
        again = _Again(settings.archiver, pool, store, target)
        with out.progress("exporting") as step:
            for number, manifest in enumerate(manifests):
                step(number, len(manifests), manifest.object)
                results.append(await again.one(manifest))
    _show(results, out)
    return 1 if any(result.state in FAULTS for result in results) else 0


class _Again:
    """Writes objects again; nothing that exists is ever overwritten."""

    def __init__(
        self, own: ArchiverSettings, pool: Pool, store: ObjectStore, target: ObjectStore | None
    ) -> None:
        self._own = own
        self._pool = pool
        self._store = store
        self._target = target

    async def one(self, manifest: Manifest) -> Result:
        window = Window(manifest.window_from, manifest.window_to)
        key = ObjectKey(manifest.table, window, manifest.supplement, manifest.merge_to)
        there = await asyncio.to_thread(lambda: set(self._store.names(key.folder)))
        has_object = manifest.object in there
        if self._target is None and has_object and key.manifest in there:
            return Result(manifest.object, "there")
        with tempfile.TemporaryDirectory(prefix="kalshi-data-", dir=self._own.work_dir or None) as folder:  # fmt: skip
            made = Path(folder, "object.parquet")
            fault = await self._make(manifest, window, Path(folder, "rows.csv"), made)
            if fault is not None:
                is_lost = fault.state == "gone" and not has_object
                return fault._replace(state="missing") if is_lost else fault
            return await asyncio.to_thread(self._put, manifest, key, made, has_object=has_object)

    async def _make(
        self, manifest: Manifest, window: Window, rows: Path, made: Path
    ) -> Result | None:
        """Make the object's file; a result when it cannot be what was recorded."""
        table, seconds = GATHERER_TABLES[manifest.table], self._own.export_s_max
        async with borrow(self._pool) as conn, conn.transaction(readonly=True):
            await conn.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")
            count = await windows.copy_window(
                conn, table, window, manifest.merge_from, manifest.merge_to, rows, seconds
            )
        if count != manifest.rows:
            detail = f"production has {count} of {manifest.rows} rows"
            state = "gone" if count < manifest.rows else "differs"
            return Result(manifest.object, state, detail)
        written = await asyncio.to_thread(write_parquet, table, rows, made)
        if written.sha256 == manifest.sha256:
            return None
        detail = f"sha256 {written.sha256}, recorded {manifest.sha256}"
        if manifest.pyarrow_version != PYARROW_VERSION:
            detail += f"; made with pyarrow {manifest.pyarrow_version}, this is {PYARROW_VERSION}"
        return Result(manifest.object, "differs", detail)

    def _put(self, manifest: Manifest, key: ObjectKey, made: Path, *, has_object: bool) -> Result:
        name = manifest.object
        if self._target is None:
            if not has_object:
                self._store.put(name, made, manifest.sha256)
            self._store.put_small(key.manifest, encode_manifest(manifest))
            return Result(name, "filled")
        present = set(self._target.names(key.folder))
        if name in present and self._target.sha256(name) != manifest.sha256:
            return Result(name, "kept")
        if name not in present:
            self._target.put(name, made, manifest.sha256)
        if key.manifest not in present:
            self._target.put_small(key.manifest, encode_manifest(manifest))
        if not has_object:
            return Result(name, "identical", "the archive misses it")
        found = self._store.sha256(name)
        if found != manifest.sha256:
            return Result(name, "archive differs", f"sha256 {found}, recorded {manifest.sha256}")
        return Result(name, "identical")


def _show(results: list[Result], out: Output) -> None:
    counts = Counter(result.state for result in results)
    table = new_table("Recorded objects", "what", "objects", "meaning")
    for state, meaning in MEANINGS.items():
        if counts[state]:
            table.add_row(state, f"{counts[state]:,}", meaning)
    if results:
        out.table(table)
    else:
        out.say("no object is recorded in this part of the archive")
    for result in results:
        if result.state in FAULTS or result.detail:
            style = "red" if result.state in FAULTS else ""
            out.say(f"{result.state}: {result.object} {result.detail}".rstrip(), style)
    out.document({"objects": [result._asdict() for result in results], "counts": dict(counts)})
