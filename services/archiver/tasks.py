"""The archiver's loop and its once-half."""

import asyncio
import functools

from libs.archive.keys import Window
from libs.archive.objects import ArchiveError, ObjectStore
from libs.marketdata.tables import GATHERER_TABLES, Table
from libs.marketdata.units import SECOND
from libs.runtime.leasing import renew_or_end
from libs.runtime.service import Runtime
from libs.store import windows
from libs.store.errors import StoreUnavailable
from libs.store.leases import Lease
from libs.store.partition_drop import drop_partitions_archived
from libs.store.pool import Pool, map_store_errors
from libs.telemetry.logging import get_logger
from services.archiver.export import export_window
from services.archiver.settings import ArchiverSettings

log = get_logger(__name__)


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
        self._fence = functools.partial(renew_or_end, lease)
        self._pool = pool
        self._store = store
        self._runtime = runtime
        self._rows = 0
        self._objects = 0

    async def export_once(self, *, closing: bool = False) -> int:
        """Export every due window of every table; return how many objects were written.

        Raises:
            ArchiveError, StoreUnavailable: what is left stays pending; call again.
            LeaseLost: another archiver is at work; nothing was recorded since.
        """
        written = 0
        for name in self._settings.tables:
            written += await self._export_table(GATHERER_TABLES[name], closing)
        return written

    async def _export_table(self, table: Table, closing: bool) -> int:
        await windows.note_pending(self._pool, table, int(self._settings.window_s * SECOND))
        written = 0
        for window, known in await windows.pending_windows(self._pool, table):
            if not (closing or known or await self._is_closed(window)):
                continue
            manifest = await export_window(
                self._pool, self._store, table, window, self._fence, self._settings.work_dir
            )
            if manifest is None:
                continue
            written += 1
            self._objects += 1
            self._rows += manifest.rows
            metrics = self._runtime.metrics
            metrics.archive_objects_total.labels(table.name).inc()
            metrics.archive_rows_total.labels(table.name).inc(manifest.rows)
            metrics.archive_bytes_total.labels(table.name).inc(manifest.bytes)
            metrics.archive_watermark_seconds.labels(table.name).set(window.end / SECOND)
            log.info(
                "window_archived", table=table.name, object=manifest.object, rows=manifest.rows,
                bytes=manifest.bytes, supplement=manifest.supplement,
            )  # fmt: skip
        return written

    async def _is_closed(self, window: Window) -> bool:
        """Closed: every known gatherer's listening passed the end, or the end is close_after_s ago."""
        age = self._runtime.clock.now() - window.end
        if age >= self._settings.close_after_s * SECOND:
            return True
        return age > 0 and await windows.heard_beyond(self._pool, window.end)

    async def drop_once(self) -> None:
        """Let production's old partitions go, those that the archive accounts for."""
        before = self._runtime.clock.now() - int(self._settings.retention_s * SECOND)
        with map_store_errors():
            async with self._pool.acquire() as conn:
                gone = await drop_partitions_archived(conn, before)
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
