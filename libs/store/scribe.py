"""A steady pen over one lane, for processes that write little and may wait: rows in, committed rows out.

The database away is waited for, with the batch in hand; a lost lane is left with its cause as gap rows, and the batch
stands on the next one. For streams that cannot wait (the connector's) this is too simple: they buffer and spool.
"""

import asyncio
from collections.abc import Callable

from libs.marketdata.rows import GapRow, family_gaps
from libs.store.batches import Rows, SealedBatch, seal
from libs.store.errors import LaneLost, StoreUnavailable
from libs.store.lanes import Committed, LaneWriter
from libs.store.steady import Patience, reopen_steadily, write_steadily
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics

log = get_logger(__name__)


class Scribe:
    """Writes rows of one family, one batch after the other; several tasks may share it.

    Args of the constructor: the lane; its family's name; `now` gives wall time in microseconds; stop bounds the
    waiting; on_lost is told why a lane was left, before anything is written on the next one.
    """

    def __init__(
        self,
        lane: LaneWriter,
        family: str,
        *,
        now: Callable[[], int],
        stop: asyncio.Event,
        metrics: Metrics,
        on_lost: Callable[[LaneLost], None] = lambda _: None,
    ) -> None:
        self._lane = lane
        self._now = now
        self._metrics = metrics
        self._on_lost = on_lost
        self._family = family
        self._one = asyncio.Lock()
        self._patience = Patience(family, now, stop=stop)
        self._owed: list[GapRow] = []

    async def write(self, rows: Rows) -> Committed:
        """Commit these rows in one batch; waits as long as the database is away.

        Raises:
            StoreUnavailable: stopping, and the database did not come back in time; the rows are not committed, or in doubt.
            StoreConflict, StoreUnsafe: exit.
        """
        async with self._one:
            while True:
                batch = seal(self._with_causes(rows))
                try:
                    with self._metrics.flush_seconds.labels(self._family).time():
                        committed = await write_steadily(self._lane, batch, self._patience)
                except LaneLost as lost:
                    await self._leave(lost)
                else:
                    self._owed.clear()
                    self._count(batch)
                    return committed

    async def close(self) -> None:
        """Close the lane; a database that is away leaves it to the successor."""
        async with self._one:
            try:
                await self._lane.close()
            except StoreUnavailable as error:
                log.warning("lane_left_open", lane=self._lane.lane, error=str(error))

    def _with_causes(self, rows: Rows) -> Rows:
        return {**rows, "gaps": [*rows.get("gaps", ()), *self._owed]} if self._owed else rows

    def _count(self, batch: SealedBatch) -> None:
        for table in batch.tables:
            self._metrics.rows_written_total.labels(table.name).inc(len(table.payloads))
        self._metrics.batches_committed_total.labels(self._family).inc()

    async def _leave(self, lost: LaneLost) -> None:
        """Open a new lane; the cause is owed until a batch on it is committed, however often lanes are lost meanwhile."""
        log.warning("lane_lost", lane=self._lane.lane, reason=lost.reason, error=str(lost))
        self._on_lost(lost)
        if lost.reason != "closed":
            now = self._now()
            self._owed += family_gaps(
                now, self._family, "database_went_back", detail=str(lost), received_to=now
            )
        await reopen_steadily(self._lane, self._patience)
