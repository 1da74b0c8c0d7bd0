"""The zone's database is stopped under load: nothing lost, order kept, no gap; as configured, and with no memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from libs.marketdata.listening import Span
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground, Terms
from tests.soak.scenario import Scenario

CALM_S = 3.0
ENOUGH = 100
"""Rows that must have waited, or nothing was tried."""


def no_memory(spool_bytes: int = 4 << 30) -> Mapping[str, Any]:
    """Return settings with memory for almost nothing: what waits has to go to the disk."""
    spool = {
        "bytes_max": spool_bytes,
        "free_bytes_min": 0,
        "rows_high": 60,
        "rows_low": 10,
        "age_s_max": 0.5,
    }
    return {
        "batches": {"buffer_rows_max": 1000, "deltas_rows": 50},
        "connector": {"spool": spool},
    }  # fmt: skip


@dataclass
class DatabaseAway(Scenario):
    """seconds without the database; has_memory: False lets everything wait on the disk."""

    name: ClassVar[str] = "database-away"
    seconds: float = 60.0
    has_memory: bool = True

    def terms(self) -> Terms:
        return Terms() if self.has_memory else Terms(gatherer=no_memory())

    async def act(self, ground: Ground) -> None:
        await ground.rest(CALM_S)
        before = ground.clock.now()
        await self._stay_away(ground)
        # What follows has to be heard before this moment is proved, the later the longer the machine keeps frames waiting.
        self._span: Span = (before, ground.clock.now())
        await ground.rest(CALM_S)

    async def _stay_away(self, ground: Ground) -> None:
        await ground.stop_database()
        begun, self._in_memory, self._on_disk = ground.clock.monotonic(), 0, 0
        while ground.clock.monotonic() - begun < self.seconds:
            await ground.rest(0.2)
            in_memory, on_disk = await waiting(ground)
            self._in_memory = max(self._in_memory, in_memory)
            self._on_disk = max(self._on_disk, on_disk)
        await ground.start_database()
        self._back_s = await ground.until(
            lambda: is_written(ground), 60 + 2 * self.seconds, "everything that waited is committed"
        )

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        lost, gaps = evidence.missing(self._span), evidence.gaps(self._span)
        disorder = await out_of_order(ground)
        waited = self._on_disk + (self._in_memory if self.has_memory else 0)
        where = f"{self._in_memory} rows in memory, {self._on_disk} on the disk"
        return [
            Measured("waited at most", where, f"> {ENOUGH}", waited > ENOUGH),
            Measured("written again after", f"{self._back_s:.1f} s", "-", True),
            Measured("deltas and trades lost", str(len(lost)), "0", not lost),
            Measured("gaps of markets heard before", str(len(gaps)), f"0 {gaps[:2] or ''}", not gaps),
            Measured("runs of frames committed out of order", str(disorder), "0", disorder == 0),
        ]  # fmt: skip


async def is_written(ground: Ground) -> bool:
    """Say whether nothing waits on the disk, and in memory no more than comes in meanwhile."""
    memory, disk = await waiting(ground)
    return disk == 0 and memory < 2 * ENOUGH


async def waiting(ground: Ground) -> tuple[int, int]:
    """Return how many rows wait in memory and on the disk, over all connectors."""
    memory = disk = 0
    for health in (await ground.healths()).values():
        memory += sum(health.get("buffer_rows", {}).values())
        disk += sum(family["rows"] for family in health.get("spool", {}).values())
    return memory, disk


async def out_of_order(ground: Ground) -> int:
    """Count runs of a sid's frames that stand in a lane before earlier ones."""
    found: int = await ground.value(
        "select count(*) from (select seq_from, max(seq_to) over (partition by b.lane, r.connection, r.sid, r.channel"
        " order by b.batch_no, r.row_no rows between unbounded preceding and 1 preceding) as before"
        " from listen_ranges r join ingest_batches b using (batch_id)) s where before >= seq_from"
    )
    return found
