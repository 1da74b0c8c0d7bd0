"""What somebody in the zone must do now and then: partitions ahead, lanes of the dead, what is released let go."""

from typing import Any, Final
from uuid import UUID

from libs.runtime.clock import Clock
from libs.store.catalogue import lend
from libs.store.dead_lanes import dead_instances
from libs.store.lane_closing import close_dead_lanes
from libs.store.ledger_retention import trim_ledger
from libs.store.partition_drop import drop_partitions_released
from libs.store.partitions import ensure_partitions
from libs.store.pool import Pool
from libs.store.summaries import Summaries
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

PROCESS: Final = "registry"


class Housekeeper:
    """The registry's rounds."""

    def __init__(
        self, pool: Pool, clock: Clock, instance: UUID, lease_s: float, ledger_keep_s: float
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._instance = instance
        self._lease_s = lease_s
        self._ledger_keep_s = ledger_keep_s
        self.rounds = 0
        self.partitions_made = 0
        self.lanes_closed = 0
        self.partitions_dropped = 0
        self.batches_forgotten = 0
        self.lanes_forgotten = 0
        self.default_rows: dict[str, int] = {}
        self._summaries = Summaries()

    def facts(self) -> dict[str, Any]:
        """Say in /health what the rounds have done."""
        return {
            "rounds": self.rounds,
            "partitions_made": self.partitions_made,
            "partitions_dropped": self.partitions_dropped,
            "lanes_closed": self.lanes_closed,
            "batches_forgotten": self.batches_forgotten,
            "lanes_forgotten": self.lanes_forgotten,
            "default_rows": self.default_rows,
        }

    async def round_once(self) -> None:
        """Make partitions ahead and close the lanes of the dead."""
        async with lend(self._pool) as conn:
            ensured = await ensure_partitions(conn, "gatherer", self._clock.now())
            self.partitions_made += len(ensured.made)
            self._note_default(ensured.default_rows)
            for instance in await dead_instances(conn, self._instance, self._lease_s):
                closed = await close_dead_lanes(conn, instance=instance)
                self.lanes_closed += len(closed)
                log.info("dead_lanes_closed", instance=instance, lanes=len(closed))
        self.rounds += 1

    async def summarize_once(self) -> None:
        """Keep the rows of new batches findable: readers look them up by batch_id."""
        async with lend(self._pool) as conn:
            await self._summaries.keep_up(conn)

    async def drop_once(self) -> None:
        """Let the partitions go of which the deduplicator has released every batch."""
        async with lend(self._pool) as conn:
            gone = await drop_partitions_released(conn, self._clock.now())
        self.partitions_dropped += len(gone.dropped)
        if gone.dropped:
            log.info("partitions_dropped", partitions=[p.name for p in gone.dropped])

    async def trim_once(self) -> None:
        """Forget ledger rows and lanes whose facts left long ago; a bounded number, the next turn goes on."""
        async with lend(self._pool) as conn:
            trimmed = await trim_ledger(conn, self._ledger_keep_s)
        self.batches_forgotten += trimmed.batches
        self.lanes_forgotten += trimmed.lanes
        if trimmed.batches or trimmed.lanes:
            log.info("ledger_trimmed", batches=trimmed.batches, lanes=trimmed.lanes)

    def _note_default(self, rows: dict[str, int]) -> None:
        if rows and rows != self.default_rows:
            log.warning("rows_in_default_partition", **rows)
        self.default_rows = rows
