"""`archive import`: production was lost; its archive comes back window by window, then the gatherers bring the rest."""

import asyncio
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.archive.catalogue import Catalogue, Fault, Selection, read_catalogue
from libs.archive.keys import BIGINT_MIN, Window, key_of
from libs.archive.manifest import Gatherer, Manifest, Superseded
from libs.archive.objects import ObjectStore
from libs.archive.reading import read_groups
from libs.archive.verification import copy_path, verify_window
from libs.marketdata.tables import GATHERER_TABLES, Table
from libs.marketdata.units import DAY
from libs.store.merge_errors import RowsRefused
from libs.store.partition_plan import CALENDAR_FROM, CALENDAR_TO, Horizon
from libs.store.partitions import ensure_partitions
from libs.store.pool import Connection, connect
from libs.store.regaining import merge_superseded
from libs.store.restoring import ImportRefused, Restoring
from libs.store.schema import check_level
from services.archiver.command_read import show_faults
from services.archiver.command_show import Output, Steps, new_table
from services.archiver.settings import Settings

APPLICATION = "kalshi-data archive"
HARMLESS = frozenset({"orphan", "name", "note"})
"""Fields of faults that concern no manifest: what they are about is no part of the archive."""


@dataclass(slots=True)
class _Done:
    """What was done, by table: [windows loaded, there already, recorded without rows, rows loaded]."""

    tables: dict[str, list[int]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def count(self, table: str, place: int, number: int = 1) -> None:
        self.tables.setdefault(table, [0, 0, 0, 0])[place] += number


async def import_archive(settings: Settings, store: ObjectStore, start: int, out: Output) -> int:
    """Load the archive into an empty production; 1 when some window of it is at fault and was left out.

    Args:
        start: microseconds; windows that end before this UTC day are recorded as archived and dropped.

    Raises:
        ImportRefused: there is no archive, production is not empty, or its gatherers are others; what was loaded
            before stays.
        ArchiveError, StoreUnavailable: one of both is away; import again.
    """
    with out.progress("reading manifests") as step:
        catalogue = await asyncio.to_thread(read_catalogue, store, None, step)
    if not catalogue.manifests and not catalogue.faults:
        # A deduplicator that merges after an import of nothing would make any later one impossible.
        raise ImportRefused(f"there is no archive in {store.root}")
    known, done = gatherers_of(catalogue.manifests), _Done(faults=list(catalogue.faults))
    start = start if start == BIGINT_MIN else start // DAY * DAY
    production = settings.production.target()
    async with connect(production, APPLICATION) as conn, connect(production, APPLICATION) as aside:
        await check_level(conn, "production")
        restoring = Restoring(conn)
        await restoring.begin(known, last_merge(catalogue), f"from {settings.archiver.root}")
        loader = _Loader(settings, store, restoring, aside, known, start)
        with out.progress("importing") as step:
            await loader.load_all(catalogue, done, step)
        rows = sum(counts[3] for counts in done.tables.values())
        await restoring.end(f"{rows} rows, {len(done.faults)} faults")
    _show(done, out)
    return 1 if any(fault.field not in HARMLESS for fault in done.faults) else 0


class _Loader:
    """Loads window after window; `aside` makes partitions while nothing else is open."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        restoring: Restoring,
        aside: Connection,
        known: Sequence[Gatherer],
        start: int,
    ) -> None:
        self._work_dir = settings.archiver.work_dir or None
        self._store = store
        self._restoring = restoring
        self._aside = aside
        self._numbers = {one.gatherer for one in known}
        self._start = start
        self._days: set[int] = set()

    async def load_all(self, catalogue: Catalogue, done: _Done, step: Steps) -> None:
        faulty = _faulty_windows(catalogue.faults)
        for number, ((name, window), manifests) in enumerate(list(catalogue.windows())):
            step(number, len(catalogue.manifests), f"{name} {manifests[0].object}")
            if (name, window) in faulty:
                continue
            table = GATHERER_TABLES.get(name)
            if table is None:
                done.faults.append(Fault(manifests[0].object, "table", f"there is no table {name}"))
            elif table.partitioned_in_production and window.last < self._start:
                await self._restoring.record_dropped(table, manifests, self._start)
                done.count(name, 2)
            else:
                await self._load(table, window, manifests, done)

    async def _load(
        self, table: Table, window: Window, manifests: list[Manifest], done: _Done
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="kalshi-data-", dir=self._work_dir) as folder:
            faults = await asyncio.to_thread(self._check, table, manifests, Path(folder))
            if faults:
                done.faults += faults
                return
            await self._make_partitions(window)
            files = [copy_path(Path(folder), manifest) for manifest in manifests]
            loaded = await self._restoring.load(table, manifests, _rows(table, files))
        if loaded is None:
            done.count(table.name, 1)
        else:
            done.count(table.name, 0)
            done.count(table.name, 3, loaded)

    def _check(self, table: Table, manifests: list[Manifest], folder: Path) -> list[Fault]:
        """Fetch and verify a window's objects, and insist that somebody said who their gatherers are."""
        faults: list[Fault] = []
        for checked in verify_window(self._store, table.name, manifests, folder):
            faults += checked.faults
            unknown = sorted((checked.gatherers or frozenset()) - self._numbers)
            if unknown:
                detail = f"no manifest says who the gatherers {unknown} are"
                faults.append(Fault(checked.object, "gatherers", detail))
        return faults

    async def _make_partitions(self, window: Window) -> None:
        """Partitions of the window's day, where it has a date at all."""
        day = window.start // DAY
        if day in self._days or not CALENDAR_FROM <= window.start < CALENDAR_TO:
            return
        await ensure_partitions(self._aside, "production", day * DAY, Horizon(0, DAY - 1))
        self._days.add(day)


def _rows(table: Table, files: Iterable[Path]) -> Iterator[list[tuple[Any, ...]]]:
    for path in files:
        yield from read_groups(table, path)


def _faulty_windows(faults: Iterable[Fault]) -> set[tuple[str, Window]]:
    keys = (key_of(fault.object) for fault in faults if fault.field not in HARMLESS)
    return {(key.table, key.window) for key in keys if key is not None}


def last_merge(catalogue: Catalogue) -> int:
    """Return the largest number of a merge that any object has, also of those set aside."""
    aside = [note.manifest for _, note in catalogue.superseded if note.manifest is not None]
    return max((manifest.merge_to for manifest in [*catalogue.manifests, *aside]), default=0)


def gatherers_of(manifests: Iterable[Manifest]) -> list[Gatherer]:
    """Put together whom the manifests' numbers of gatherers mean; the latest name of a zone counts.

    Raises:
        ImportRefused: two manifests mean different gatherers by one number.
    """
    found: dict[int, tuple[Gatherer, str]] = {}
    for manifest in sorted(manifests, key=lambda one: one.merge_to):
        for one in manifest.gatherers:
            before, where = found.get(one.gatherer, (one, ""))
            if before.identity != one.identity:
                raise ImportRefused(
                    f"gatherer {one.gatherer} is {before.identity} in {where} and {one.identity} in"
                    f" {manifest.object}: the bucket holds two histories"
                )
            found[one.gatherer] = one, manifest.object
    return [one for _, (one, _) in sorted(found.items())]


async def import_superseded(
    settings: Settings, store: ObjectStore, selection: Selection, out: Output
) -> int:
    """Merge what was set aside into the production that is there; 1 when some of it could not be.

    Raises:
        ArchiveError, StoreUnavailable: one of both is away; what was merged before stays, merging again changes nothing.
    """
    catalogue = await asyncio.to_thread(read_catalogue, store, selection)
    table = new_table("Objects set aside", "object", "rows", "new in production", "")
    results: list[dict[str, Any]] = []
    async with connect(settings.production.target(), APPLICATION) as conn:
        await check_level(conn, "production")
        for name, note in catalogue.superseded:
            if note.object is None:
                continue
            try:
                read, inserted = await _merge_one(conn, store, note, settings.archiver.work_dir)
                results.append(
                    {"object": note.was, "rows": read, "inserted": inserted, "fault": ""}
                )
            except (RowsRefused, ImportRefused) as error:
                results.append({"object": note.was, "rows": 0, "inserted": 0, "fault": str(error)})
            step = results[-1]
            table.add_row(name, f"{step['rows']:,}", f"{step['inserted']:,}", step["fault"])
    if results:
        out.table(table)
    else:
        out.say("nothing was set aside")
    out.document({"objects": results})
    return 1 if any(result["fault"] for result in results) else 0


async def _merge_one(
    conn: Connection, store: ObjectStore, note: Superseded, work_dir: str
) -> tuple[int, int]:
    key = key_of(note.was)
    table = None if key is None else GATHERER_TABLES.get(key.table)
    if table is None or note.object is None:
        raise ImportRefused(f"{note.was} is no object of a table we know")
    if note.manifest is None:
        raise ImportRefused("it never had a manifest, so nothing says who its gatherers are")
    with tempfile.TemporaryDirectory(prefix="kalshi-data-", dir=work_dir or None) as folder:
        path = Path(folder, "object.parquet")
        if await asyncio.to_thread(store.download, note.object, path) != note.sha256:
            raise ImportRefused("its bytes are not those that were set aside")
        known = note.manifest.gatherers
        return await merge_superseded(conn, table, known, _rows(table, [path]), note.was)


def _show(done: _Done, out: Output) -> None:
    table = new_table("Imported", "table", "windows loaded", "there already", "archived and dropped", "rows loaded")  # fmt: skip
    for name, counts in sorted(done.tables.items()):
        table.add_row(name, *(f"{count:,}" for count in counts))
    out.table(table)
    show_faults(done.faults, out)
    names = ("loaded", "there", "dropped", "rows")
    out.document(
        {
            "tables": {name: dict(zip(names, counts, strict=True)) for name, counts in done.tables.items()},
            "faults": [{"object": f.object, "field": f.field, "detail": f.detail} for f in done.faults],
        }
    )  # fmt: skip
