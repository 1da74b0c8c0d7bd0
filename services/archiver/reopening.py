"""Opening dropped ranges again for rows that came late: every object of their windows back into production.

The deduplicator asks through production; nobody else is spoken to. An object is downloaded and its sha256 compared before
a row of it is loaded. While the store is away the request waits; an object that is missing or wrong fails it, loudly, and
it is tried again until somebody has brought the object back or given the late rows up.
"""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from libs.archive.errors import ArchiveError, ObjectDiffers, ObjectUnreadable
from libs.archive.objects import ObjectStore
from libs.archive.reading import read_groups
from libs.marketdata.tables import GATHERER_TABLES
from libs.runtime.leasing import LeaseLost, renew_or_end
from libs.runtime.service import Runtime
from libs.store.dropped import Range
from libs.store.errors import StoreUnavailable
from libs.store.leases import Lease
from libs.store.pool import Pool
from libs.store.reopening import Archived, WindowsDiffer, archived_objects, reopen
from libs.store.reopening_requests import abandon_unwanted, due_reopenings, note_failed
from libs.telemetry.logging import get_logger
from services.archiver.settings import ArchiverSettings

log = get_logger(__name__)

Rows = list[tuple[Any, ...]]


class Reopener:
    """Works off the requests for dropped ranges, one after the other."""

    def __init__(
        self,
        settings: ArchiverSettings,
        pool: Pool,
        store: ObjectStore,
        runtime: Runtime,
        lease: Lease,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._store = store
        self._runtime = runtime
        self._lease = lease
        self._fault = ""

    async def reopen_once(self) -> None:
        """Open what is asked for; a range that cannot be opened keeps none of the others from it.

        Raises:
            StoreUnavailable: production is away, or a table's lock was not to be had; call again.
            LeaseLost: another archiver is at work; nothing was changed since.
        """
        held: dict[str, StoreUnavailable] = {}
        for wanted in await abandon_unwanted(self._pool):
            log.info("reopening_abandoned", range=str(wanted))
        failed = 0
        for wanted in await due_reopenings(self._pool, self._settings.reopening_retry_s_max):
            if wanted.table in held:
                continue
            try:
                await self._open(wanted)
            except StoreUnavailable as error:
                held[wanted.table] = error
            except (ArchiveError, WindowsDiffer) as error:
                is_final = is_about_the_object(error)
                await self._note(wanted, error, is_final=is_final)
                failed += 1
                if not is_final:
                    break  # the store is away for all of them
        self._runtime.metrics.archive_reopenings_failed.set(failed)
        if not failed:
            self._say("")
        for fault in held.values():
            raise fault

    async def _open(self, wanted: Range) -> None:
        own, began = self._settings, self._runtime.clock.monotonic()
        await renew_or_end(self._lease)
        objects = await archived_objects(self._pool, wanted)
        with tempfile.TemporaryDirectory(prefix="kalshi-data-", dir=own.work_dir or None) as folder:
            files = [Path(folder, f"{number}.parquet") for number in range(len(objects))]
            for one, file in zip(objects, files, strict=True):
                await asyncio.to_thread(self._fetch, one, file)
            groups = _groups(wanted.table, objects, files)
            rows = await reopen(
                self._pool, wanted, objects, groups, self._lease, own.export_s_max
            )  # fmt: skip
        if rows is None:
            raise LeaseLost(f"the lease {self._lease.name} was taken by another process")
        self._runtime.metrics.archive_reopened_total.labels(wanted.table).inc()
        took_s = round(self._runtime.clock.monotonic() - began, 3)
        log.info(
            "range_reopened", range=str(wanted), objects=len(objects), rows=rows, took_s=took_s
        )

    def _fetch(self, one: Archived, file: Path) -> None:
        found = self._store.download(one.object, file)
        if found != one.sha256:
            raise ObjectDiffers(f"{one.object} has sha256 {found}, its manifest says {one.sha256}")

    async def _note(self, wanted: Range, error: Exception, *, is_final: bool) -> None:
        if await note_failed(self._pool, wanted, str(error), is_final=is_final):
            log.error("reopening_failed", range=str(wanted), error=str(error))
        elif not is_final and self._fault != str(error):
            log.warning("reopening_waits", range=str(wanted), error=str(error))
        self._say(str(error))

    def _say(self, fault: str) -> None:
        self._fault = fault
        self._runtime.health.set("reopening", fault)


def is_about_the_object(error: Exception) -> bool:
    """True when waiting does not mend it: the object is not there, or not what its manifest says."""
    if isinstance(error, ObjectDiffers | ObjectUnreadable | WindowsDiffer):
        return True
    return isinstance(error.__cause__, FileNotFoundError)


def _groups(table: str, objects: Sequence[Archived], files: Sequence[Path]) -> Iterator[Rows]:
    """Yield the rows of all objects, and insist that each has as many as its manifest says."""
    for one, file in zip(objects, files, strict=True):
        rows = 0
        for group in read_groups(GATHERER_TABLES[table], file):
            rows += len(group)
            yield group
        if rows != one.rows:
            raise ObjectDiffers(f"{one.object} has {rows} rows, its manifest says {one.rows}")
