"""The disk spool of this process put together: the families that are written, and what was found at the start.

Without a directory there is none, and a directory that cannot be used is said and done without: capture needs no disk.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
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
from services.connector.inherited import Heir, Legacy
from services.connector.pipeline import Pipeline
from services.connector.settings import Settings
from services.connector.spooling import Spooling
from services.connector.storage import HELD, Storage

log = get_logger(__name__)

DIRECTORY = "spool"
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
        self._identity = ""
        self._inheriting: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def _open(self) -> None:
        own = self._settings.connector
        if not own.state_dir or not own.spool.bytes_max:
            return
        limits = SpoolLimits(own.spool.bytes_max, own.spool.free_bytes_min, own.spool.fsync)
        spool = Spool(Path(own.state_dir) / DIRECTORY / own.shard, limits)
        try:
            refused = await asyncio.to_thread(spool.open)
        except OSError as error:
            log.warning("spool_unusable", directory=str(spool.directory), error=str(error))
            return
        for said in refused:
            log.error("spool_refused", reason=said)
        self._spool = spool
        self._attach()

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
        if not self._runs:
            return gaps
        heir.identity = identity
        keyed = [(row.connection, row.sid, row) for row in gaps]
        heir.known = {(c, sid): row for c, sid, row in keyed if c is not None and sid is not None}
        return [row for c, sid, row in keyed if c is None or sid is None]

    async def _inherit(self, ended: asyncio.Event) -> None:
        if not self._runs:
            self.is_settled.set()
        self._inheriting = asyncio.current_task()
        await first_of(self._adopted, ended)
        heir, spool = self._heir, self._spool
        if spool is not None and self._runs:
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
        for family, spooling in self._spoolings.items():
            yield f"spool-{family.value}", spooling.run(ended)
        yield "spool-inherited", self._inherit(ended)

    async def settle(self, timeout_s: float) -> None:
        """Wait until what an earlier process left is committed; not longer than that, and not for what is held back: then
        it is left to the next one.
        """
        if any(map(self._heir.holds, HELD)):
            timeout_s = 0.0
        if not await first_of(self.is_settled, timeout_s=timeout_s) and self._inheriting:
            self._inheriting.cancel()

    async def keep_all(self) -> None:
        """Write what is left in memory to the disk; for when the writers have ended and left something."""
        for family, spooling in self._spoolings.items():
            self._pipelines[family].mark()
            await spooling.keep_all()

    def _close(self) -> None:
        if self._spool is None:
            return
        families = self._spool.families.items()
        if left := {family.value: part.size_bytes for family, part in families if part.size_bytes}:
            log.warning("spool_left_to_the_next", **left)
        self._spool.close()

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
            }
        return found
