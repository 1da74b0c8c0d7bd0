"""A steady pen over one lane, for processes that write little and may wait: rows in, committed rows out.

The database away is waited for, with the batch in hand; a lost lane is left with its cause as a gap row, and the batch
stands on the next one. For streams that cannot wait (the connector's) this is too simple: they buffer and spool.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from libs.marketdata.rows import GapRow
from libs.store.batches import Rows, SealedBatch, seal
from libs.store.errors import LaneLost, StoreUnavailable
from libs.store.lanes import Committed, LaneWriter
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics

log = get_logger(__name__)

WAIT_S_MIN: Final = 0.2
WAIT_S_MAX: Final = 5.0
STOP_S_MAX: Final = 10.0
"""After the stop signal the database is waited for this long, seconds."""


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
        self._stop = stop
        self._metrics = metrics
        self._on_lost = on_lost
        self._family = family
        self._one = asyncio.Lock()
        self.waiting_since: int | None = None

    async def write(self, rows: Rows) -> Committed:
        """Commit these rows in one batch; waits as long as the database is away.

        Raises:
            StoreUnavailable: stopping, and the database did not come back in time; the rows are not committed, or in doubt.
            StoreConflict, StoreUnsafe: exit.
        """
        async with self._one:
            batch = seal(rows)
            while True:
                try:
                    committed = await self._attempts(batch)
                except LaneLost as lost:
                    batch = seal(await self._leave(lost, rows))
                    continue
                for table in batch.tables:
                    self._metrics.rows_written_total.labels(table.name).inc(len(table.payloads))
                self._metrics.batches_committed_total.labels(self._family).inc()
                return committed

    async def close(self) -> None:
        """Close the lane; a database that is away leaves it to the successor."""
        async with self._one:
            try:
                await self._lane.close()
            except StoreUnavailable as error:
                log.warning("lane_left_open", lane=self._lane.lane, error=str(error))

    async def _attempts(self, batch: SealedBatch) -> Committed:
        wait, deadline = WAIT_S_MIN, None
        while True:
            try:
                with self._metrics.flush_seconds.labels(self._family).time():
                    committed = await self._lane.write(batch)
            except StoreUnavailable as error:
                self._note_away(error)
                deadline = self._deadline(deadline)
                if deadline is not None and self._now() > deadline:
                    raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, WAIT_S_MAX)
            else:
                self._note_back()
                return committed

    def _deadline(self, deadline: int | None) -> int | None:
        if deadline is None and self._stop.is_set():
            return self._now() + int(STOP_S_MAX * 1_000_000)
        return deadline

    def _note_away(self, error: StoreUnavailable) -> None:
        if self.waiting_since is None:
            self.waiting_since = self._now()
            log.warning("database_away", family=self._family, error=str(error))

    def _note_back(self) -> None:
        if self.waiting_since is not None:
            log.info("database_back", family=self._family)
            self.waiting_since = None

    async def _leave(self, lost: LaneLost, rows: Rows) -> Rows:
        log.warning("lane_lost", lane=self._lane.lane, reason=lost.reason, error=str(lost))
        self._on_lost(lost)
        await self._lane.reopen()
        if lost.reason == "closed":
            return rows
        return {**rows, "gaps": [*rows.get("gaps", ()), self._cause(lost)]}

    def _cause(self, lost: LaneLost) -> GapRow:
        now = self._now()
        return GapRow(
            received_at=now, row_no=0, channel="rest", slot="", reason="database_went_back", detail=str(lost),
            ticker=None, from_ts=None, to_ts=None, received_from=None, received_to=now, seq_from=None, seq_to=None,
            rows_lost=None, connection=None, sid=None,
        )  # fmt: skip
