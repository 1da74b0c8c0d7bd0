"""The archiver's loop and its once-half."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from libs.archive.errors import ArchiveError
from libs.archive.keys import MANIFEST, Window
from libs.archive.manifest import Superseded
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import GATHERER_TABLES, Table
from libs.marketdata.units import SECOND
from libs.runtime.service import Runtime
from libs.store import archive_records, windows
from libs.store.borrowing import borrow
from libs.store.errors import StoreUnavailable
from libs.store.leases import Lease
from libs.store.partition_drop import drop_partitions_archived
from libs.store.pool import Pool
from libs.telemetry.logging import get_logger
from services.archiver.export import export_window
from services.archiver.settings import ArchiverSettings, width_of

log = get_logger(__name__)

FAULTS_IN_A_ROW_MAX: Final = 3
"""After so many windows that failed one after the other it is no window's fault: the round ends, the next one tries."""


class Faults:
    """What went wrong in one round: single windows are passed over, a store that is away is not asked for each of them."""

    def __init__(self) -> None:
        self.first: Exception | None = None
        self._in_a_row = 0

    @contextmanager
    def passed_over(self, table: Table, window: Window | None = None) -> Iterator[None]:
        """Keep and log what fails inside.

        Raises:
            ArchiveError, StoreUnavailable: the first fault of the round, when it was one of too many in a row.
        """
        try:
            yield
        except (ArchiveError, StoreUnavailable) as fault:
            log.warning(
                "export_failed", table=table.name, window=window and window.start, error=str(fault)
            )
            self.first = self.first or fault
            self._in_a_row += 1
            if self._in_a_row >= FAULTS_IN_A_ROW_MAX:
                raise self.first from fault
        else:
            self._in_a_row = 0


class Archiver:
    """Exports what is due. `closing` true: windows still open are exported too (the process is being stopped)."""

    def __init__(
        self,
        settings: ArchiverSettings,
        pool: Pool,
        store: ObjectStore,
        runtime: Runtime,
        lease: Lease,
    ) -> None:
        self._settings = settings
        self._lease = lease
        self._pool = pool
        self._store = store
        self._runtime = runtime
        self._rows = 0
        self._objects = 0
        self._failed: dict[tuple[str, Window], int] = {}
        self._is_own = False

    async def export_once(self, *, closing: bool = False) -> int:
        """Export every due window of every table; return how many objects were written.

        A window that fails stops no other one: it is passed over, and comes after the others next time.

        Raises:
            ArchiveError, StoreUnavailable: the first fault there was; what is left stays pending; call again.
            LeaseLost: another archiver is at work; nothing was recorded since.
        """
        await self._insist_on_history()
        before, faults, due = self._objects, Faults(), list[tuple[Table, Window]]()
        for name in self._settings.tables:
            table = GATHERER_TABLES[name]
            with faults.passed_over(table):
                due += [(table, window) for window in await self._due(table, closing)]
        due.sort(key=lambda one: self._failed.get((one[0].name, one[1]), 0))
        for table, window in due:
            with faults.passed_over(table, window):
                await self._export(table, window)
        if faults.first is not None:
            raise faults.first
        return self._objects - before

    async def _due(self, table: Table, closing: bool) -> list[Window]:
        """Note what is new; return the pending windows that are to be exported now."""
        own = self._settings
        width = width_of(own, table.name)
        await windows.note_pending(self._pool, table, width, own.export_s_max)
        pending = await windows.pending_windows(self._pool, table)
        return [one.window for one in pending if closing or await self._is_due(one)]

    async def _export(self, table: Table, window: Window) -> None:
        own, place = self._settings, (table.name, window)
        # Stands until it is through, whatever stops it.
        self._failed[place] = self._failed.get(place, 0) + 1
        manifest = await export_window(
            self._pool, self._store, table, window, self._lease, own.work_dir, own.export_s_max,
            self._count_superseded,
        )  # fmt: skip
        del self._failed[place]
        if manifest is None:
            return
        self._objects += 1
        self._rows += manifest.rows
        metrics = self._runtime.metrics
        metrics.archive_objects_total.labels(table.name).inc()
        metrics.archive_rows_total.labels(table.name).inc(manifest.rows)
        metrics.archive_bytes_total.labels(table.name).inc(manifest.bytes)
        if window.end <= self._runtime.clock.now():
            metrics.archive_watermark_seconds.labels(table.name).set(window.end / SECOND)
        log.info(
            "window_archived", table=table.name, object=manifest.object, rows=manifest.rows,
            bytes=manifest.bytes, supplement=manifest.supplement,
        )  # fmt: skip

    def _count_superseded(self, note: Superseded) -> None:
        table = note.was.partition("/")[0]
        self._runtime.metrics.archive_superseded_total.labels(table).inc()

    async def _insist_on_history(self) -> None:
        """Once: a production that recorded nothing yet must not set aside, hour by hour, the archive of another one.

        Raises:
            ArchiveError: the store holds more than an archiver that ended before its first record can have left.
        """
        if self._is_own:
            return
        if not await archive_records.has_manifests(self._pool):
            found = await asyncio.to_thread(self._count_manifests)
            if found > len(GATHERER_TABLES):
                raise ArchiveError(
                    "production has recorded no object, but the archive holds many; bring it back first (kalshi-data"
                    " archive import), or choose an empty root"
                )
        self._is_own = True

    def _count_manifests(self) -> int:
        names = (name for name in self._store.names() if name.endswith(MANIFEST))
        return sum(1 for _ in islice(names, len(GATHERER_TABLES) + 1))

    async def _is_due(self, pending: windows.Pending) -> bool:
        """Due: the window is closed, and its last object, if there is one, is close_after_s old."""
        if pending.archived_at is not None:
            age = self._runtime.clock.now() - pending.archived_at
            if age < self._settings.close_after_s * SECOND:
                return False
        return await self._is_closed(pending.window)

    async def _is_closed(self, window: Window) -> bool:
        """Closed: every known gatherer's listening passed the end, or the end is close_after_s ago."""
        age = self._runtime.clock.now() - window.end
        if age >= self._settings.close_after_s * SECOND:
            return True
        return age > 0 and await windows.heard_beyond(self._pool, window.end)

    async def drop_once(self) -> None:
        """Let production's old partitions go, those that the archive accounts for."""
        before = self._runtime.clock.now() - int(self._settings.retention_s * SECOND)
        async with borrow(self._pool) as conn:
            quiet_s = self._settings.reopened_quiet_s
            gone = await drop_partitions_archived(conn, before, quiet_s)
        for partition, why in gone.kept:
            log.warning("partition_kept", partition=partition.name, reason=why)
        if gone.dropped:
            log.info("partitions_dropped", partitions=[p.name for p in gone.dropped])

    async def run(self, done: asyncio.Event) -> None:
        """Export until stop, then export the open windows too, and set `done`.

        What cannot be reached is tried again each round.

        Raises:
            LeaseLost: another archiver is at work.
        """
        while await self._runtime.sleep(self._settings.poll_s):
            await self._round()
        await self._round(closing=True)
        done.set()

    async def _round(self, *, closing: bool = False) -> None:
        try:
            await self.export_once(closing=closing)
            error = ""
        except (ArchiveError, StoreUnavailable) as failure:
            error = str(failure)
            log.warning("archive_postponed", error=error)
        self._runtime.health.set("objects", self._objects)
        self._runtime.health.set("rows", self._rows)
        self._runtime.health.set("error", error)
        self._runtime.health.ready = not error
