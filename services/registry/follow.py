"""Following the zone's own lifecycle rows, by the ledger's cursors."""

import json
from typing import Any, Final
from uuid import UUID

from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock
from libs.store.catalogue import get_state, lend, set_state
from libs.store.leases import Lease
from libs.store.pool import Pool
from libs.store.tail import read_heads, read_tail
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.registry.keeper import Keeper

log = get_logger(__name__)

STATE_KEY: Final = "lifecycle_cursors"
SAVE_EVERY: Final = 5_000_000
"""Cursors are remembered at most this often, microseconds; what is read again after a crash changes nothing."""
TABLE: Final = "market_lifecycle"


class LifecycleFollower:
    """Reads new lifecycle rows and gives them to the keeper."""

    def __init__(
        self, pool: Pool, keeper: Keeper, clock: Clock, lease: Lease, metrics: Metrics
    ) -> None:
        self._lease = lease
        self._lag = metrics.catalogue_lag_seconds
        self._pool = pool
        self._keeper = keeper
        self._clock = clock
        self._cursors: dict[UUID, int] = {}
        self._saved: dict[UUID, int] = {}
        self._saved_at = 0
        self.rows = 0
        self.last_lag_ms: float | None = None

    def facts(self) -> dict[str, Any]:
        """Say in /health how far lifecycle rows are followed."""
        return {"rows": self.rows, "last_lag_ms": self.last_lag_ms}

    async def load(self) -> None:
        """Go on from the remembered cursors, or, without any, from the present ends: a full listing follows then."""
        async with lend(self._pool) as conn:
            heads = await read_heads(conn, TABLE)
            text = await get_state(conn, STATE_KEY)
        if text is None:
            self._cursors = heads
            return
        remembered = {UUID(lane): number for lane, number in json.loads(text).items()}
        # A cursor beyond the lane's end belongs to a database that was restored from an older copy.
        self._cursors = {
            lane: min(number, heads[lane]) for lane, number in remembered.items() if lane in heads
        }
        self._saved = dict(self._cursors)

    async def follow_once(self) -> None:
        """Apply what is new, until nothing is."""
        while True:
            async with lend(self._pool) as conn:
                tail = await read_tail(conn, TABLE, self._cursors)
            if tail.rows:
                await self._keeper.hear(tail.rows)
                self.rows += len(tail.rows)
                now = self._clock.now()
                self.last_lag_ms = (now - max(row.received_at for row in tail.rows)) / 1000
                for row in tail.rows:
                    self._lag.observe(max(0, now - row.observed_at) / SECOND)
            self._cursors = dict(tail.cursors)
            if tail.is_end:
                break
        if self._cursors != self._saved and self._clock.now() - self._saved_at >= SAVE_EVERY:
            await self.save()

    async def save(self) -> None:
        """Remember the cursors."""
        text = json.dumps({str(lane): number for lane, number in self._cursors.items()})
        async with lend(self._pool) as conn:
            await set_state(conn, STATE_KEY, text, self._lease)
        self._saved, self._saved_at = dict(self._cursors), self._clock.now()
