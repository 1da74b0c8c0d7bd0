"""The disk spool of this process put together: the families that are written, and what was found at the start.

Without a directory there is none. One that cannot be used is said, done without, and tried again: capture needs no disk.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from libs.flow.token_bucket import TokenBucket
from libs.marketdata.rows import GapRow
from libs.marketdata.tables import Family
from libs.marketdata.units import SECOND
from libs.runtime.service import Runtime
from libs.store.lanes import LaneWriter
from libs.store.pool import Pool
from libs.store.spool import Spool, SpoolLimits
from libs.store.spool_format import RunHeader
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.connector.buffer import BYTES_MAX, Marks
from services.connector.disk import Disk
from services.connector.inherited import Heir, Legacy
from services.connector.leftovers import Leftovers
from services.connector.pipeline import Pipeline
from services.connector.settings import Settings
from services.connector.sids import FAMILIES
from services.connector.spooling import Spooling
from services.connector.storage import HELD, Storage

log = get_logger(__name__)

DIRECTORY = "spool"
OPEN_AGAIN_S = 5.0
"""Seconds after which a directory that could not be used is tried again."""
LOOK_S = 0.1


class Spools:
    """See the module. As a context it finds what is there and keeps others out; at the end the next process may have it.

    Args of the constructor: the process's pipelines, each of which is given its part of the disk.

    Attributes:
        is_settled: set when nothing of an earlier process waits any more.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        instance: UUID,
        pipelines: Mapping[Family, Pipeline],
        *,
        lane_of: Callable[[Family], LaneWriter],
        write_gap: Callable[[GapRow], None],
        pool: Pool,
        storage: Storage,
    ) -> None:
        self.is_settled = asyncio.Event()
        self._settings = settings
        self._runtime = runtime
        self._storage = storage
        self._instance = instance
        self._spool: Spool | None = None
        self._spoolings: dict[Family, Spooling] = {}
        self._pipelines = pipelines
        rate = float(settings.connector.spool.replay_rows_per_s)
        self._heir = Heir(
            pool, settings.connector.shard, settings.zone, runtime.clock, runtime.metrics,
            TokenBucket(rate, rate / 10), lane_of, write_gap, storage.holds,
        )  # fmt: skip
        self._adopted = asyncio.Event()
        self._attached = asyncio.Event()
        self._disk = Disk()
        self._fault = ""
        self._in_doubt: Spool | None = None
        self._identity = ""
        self._inheriting: asyncio.Task[Any] | None = None
        self._is_left = False

    async def __aenter__(self) -> Self:
        if self._is_wanted:
            await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._spool is None:
            return
        self._say_what_is_left()
        if any(spooling.disk.hangs for spooling in self._spoolings.values()):
            # A thread is in the middle of it; the lock goes with the process.
            log.error("spool_hangs", directory=str(self._spool.directory))
            return
        try:
            await self._disk.do(self._spool.close)
        except TimeoutError:
            log.exception("spool_hangs", directory=str(self._spool.directory))

    @property
    def _is_wanted(self) -> bool:
        own = self._settings.connector
        return bool(own.state_dir and own.spool.bytes_max)

    async def _open(self) -> None:
        """Take the directory; what is in its way is said once, and shown in /health."""
        own = self._settings.connector
        limits = SpoolLimits(own.spool.bytes_max, own.spool.free_bytes_min, own.spool.fsync)
        spool = Spool(Path(own.state_dir) / DIRECTORY / own.shard, limits)
        try:
            if self._in_doubt is not None:
                await self._disk.do(self._in_doubt.close)
            self._in_doubt = spool
            refused = await self._disk.do(spool.open)
        except OSError as error:
            held = isinstance(error, BlockingIOError)
            fault = "another process holds it" if held else str(error)
            if fault != self._fault:
                self._fault = fault
                log.warning("spool_unusable", directory=str(spool.directory), error=fault)
            return
        for said in refused:
            log.error("spool_refused", reason=said)
        if self._fault:
            log.info("spool_usable", directory=str(spool.directory))
        self._fault, self._spool, self._in_doubt = "", spool, None
        self._attach()
        self._attached.set()

    async def _keep_opening(self, ended: asyncio.Event) -> None:
        """Try again until the directory is ours: its last owner may still be about to end, a volume about to be there."""
        while self._is_wanted and self._spool is None and not ended.is_set():
            await first_of(ended, timeout_s=OPEN_AGAIN_S)
            await self._open()
        await ended.wait()

    def _attach(self) -> None:
        own, clock = self._settings.connector, self._runtime.clock
        marks = Marks(
            own.spool.rows_high, own.spool.rows_low, BYTES_MAX // 2, int(own.spool.age_s_max * SECOND)
        )  # fmt: skip
        assert self._spool is not None
        for family, pipeline in self._pipelines.items():
            pipeline.buffer.marks = marks
            pipeline.spooling = self._spoolings[family] = Spooling(
                pipeline.buffer,
                self._spool.families[family],
                clock,
                self._runtime.metrics,
                header=lambda now, f=family: self._header(f, now),  # type: ignore[misc]
                position=lambda lane=pipeline.lane: (lane.lane, lane.confirmed),  # type: ignore[misc]
                fsync_s=own.spool.fsync_ms / 1000 if own.spool.fsync == "interval" else None,
                replay_rows_per_s=float(own.spool.replay_rows_per_s),
            )
            pipeline.spooling.cut_due = pipeline.cut_due

    def _header(self, family: Family, now: int) -> RunHeader:
        own, lane = self._settings, self._pipelines[family].lane.lane
        return RunHeader(
            own.zone, self._identity, own.connector.shard, str(self._instance), family.value, str(lane), now
        )  # fmt: skip

    # --- what an earlier process left ---

    @property
    def _runs(self) -> int:
        spool = self._spool
        return sum(len(f.inherited) for f in spool.families.values()) if spool else 0

    def adopt(self, gaps: list[GapRow], identity: str) -> list[GapRow]:
        """Begin to commit what was found, now that the lanes of the dead are closed.

        Args:
            gaps: where hearing stopped by what the database has. identity: the database's.

        Returns:
            The gaps that are to be written now; the others are written when the spool has told more.
        """
        self._identity = identity
        self._adopted.set()
        heir = self._heir
        heir.identity = identity
        parts = self._spool.families.values() if self._spool else ()
        told = {part.family for part in parts if part.inherited}
        if Family.TRADES in told:
            told.add(Family.TICKERS)  # of a run from before they had a family of their own
        # A run may be held back for days, and with it only what it can tell more of.
        now = []
        for row in gaps:
            if row.connection is None or row.sid is None or FAMILIES.get(row.channel) not in told:
                now.append(row)
            else:
                heir.known[row.connection, row.sid] = row
        return now

    async def _inherit(self, ended: asyncio.Event) -> None:
        if not self._runs:
            self.is_settled.set()
        self._inheriting = asyncio.current_task()
        await first_of(self._adopted, ended)
        await first_of(self._attached, ended)
        heir, spool = self._heir, self._spool
        if spool is not None and self._runs:
            self.is_settled.clear()
            log.warning("spool_inherited", runs=self._runs, bytes=self._bytes_inherited())
            # What may be held back holds nothing else back.
            for part in sorted(spool.families.values(), key=lambda part: part.family in HELD):
                for run in list(part.inherited):
                    if run.header.zone != heir.zone:
                        log.error("spool_refused", reason=f"{part.refuse(run)}: of another zone")
                        continue
                    await self._commit(Legacy(heir, part, run), ended)
            for row in heir.known.values():
                heir.write_gap(row)
        self.is_settled.set()
        await ended.wait()

    async def _commit(self, legacy: Legacy, ended: asyncio.Event) -> None:
        await legacy.commit()
        rest = self._pipelines[Family.REST]
        mark = rest.mark()
        while not rest.has_written(mark) and not ended.is_set():
            await first_of(ended, timeout_s=LOOK_S)
        if rest.has_written(mark):
            await legacy.dispose()
        log.info(
            "spool_committed",
            run=legacy.run.path.name,
            batches=legacy.batches,
            doubles=legacy.doubles,
            torn=legacy.torn,
        )

    def _bytes_inherited(self) -> int:
        families = self._spool.families.values() if self._spool else ()
        return sum(run.size_bytes for part in families for run in part.inherited)

    # --- life ---

    def tasks(self, ended: asyncio.Event) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Yield what is to run until the end, by name."""
        for family in self._pipelines:
            yield f"spool-{family.value}", self._look_after(family, ended)
        yield "spool-inherited", self._inherit(ended)
        yield "spool-open", self._keep_opening(ended)

    async def _look_after(self, family: Family, ended: asyncio.Event) -> None:
        await first_of(self._attached, ended)
        spooling = self._spoolings.get(family)
        await (spooling.run(ended) if spooling is not None else ended.wait())

    async def settle(self, timeout_s: float) -> None:
        """Wait until what an earlier process left is committed; not longer than that, and not for what is held back: then
        it is left to the next one.
        """
        self._is_left = self._storage.is_full
        if self._is_left:
            timeout_s = 0.0
        if not await first_of(self.is_settled, timeout_s=timeout_s) and self._inheriting:
            self._inheriting.cancel()

    async def write_down_held(self, held: Collection[Family]) -> None:
        """Write the cause of what stays on this disk because the database is full: nobody else can, if the disk goes.

        Args:
            held: the families of which this process leaves rows.
        """
        if self._spool is None:
            return
        own, buffers = self._settings, {family: self._pipelines[family].buffer for family in held}
        left = Leftovers(
            own.zone, own.connector.shard, self._spool, self._disk, buffers, is_waiting=self._is_left
        )  # fmt: skip
        for row in await left.gaps(self._runtime.clock.now()):
            self._heir.write_gap(row)

    async def keep_all(self) -> None:
        """Write what is left in memory to the disk; for when the writers have ended and left something."""
        for family in self._spoolings:
            self._pipelines[family].mark()
        await asyncio.gather(*(spooling.keep_all() for spooling in self._spoolings.values()))

    def _say_what_is_left(self) -> None:
        families = self._spool.families.items() if self._spool else ()
        if left := {family.value: part.size_bytes for family, part in families if part.size_bytes}:
            log.warning("spool_left_to_the_next", **left)

    @property
    def fault(self) -> str:
        """Why there is no spool where there should be one, or nothing can be written to it; empty when all is well."""
        faults = (f"{family.value}: {s.fault}" for family, s in self._spoolings.items() if s.fault)
        return self._fault or "; ".join(faults)

    def describe(self) -> dict[str, Any]:
        """Return what /health shows, by family."""
        found: dict[str, Any] = {}
        for family, spooling in self._spoolings.items():
            figures = spooling.figures
            found[family.value] = {
                "bytes": figures.bytes,
                "batches": figures.batches,
                "rows": figures.rows,
                "age_s": round(figures.age_s, 3),
                "inherited_bytes": sum(run.size_bytes for run in spooling.spool.inherited),
                "fault": spooling.fault,
            }
        return found
