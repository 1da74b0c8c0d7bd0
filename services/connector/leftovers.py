"""What an ending process leaves on its disk because it is held back: written down, for the disk may go with the pod.

Nothing of it is lost as long as somebody takes the volume up, and nothing is dropped, so no other cause would name it:
the lanes are closed in order. Where the volume goes, as a pod's own does, the rows written here are all that tells of it.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from libs.marketdata.rows import GapRow, family_gaps
from libs.marketdata.tables import Family
from libs.store.spool import FamilySpool, Spool
from libs.store.spool_format import Record, SpoolRefused
from libs.store.spool_oldest import Oldest, find_oldest
from libs.store.spool_run import SpoolRun
from libs.telemetry.logging import get_logger
from services.connector.buffer import Buffer
from services.connector.disk import Disk
from services.connector.openings import ranges_of

log = get_logger(__name__)

LOOK_S_MAX = 2.0
"""Seconds that the disk is asked: a drain waits for it, and without an answer the runs' names say nearly as much."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """See the module.

    Attributes:
        zone, shard: whose rows they are. disk: the thread that looks.
        held: buffers of the families of which this process received rows that it could not commit.
        is_waiting: whether what lies there of earlier processes is left for the same reason.
    """

    zone: str
    shard: str
    spool: Spool
    disk: Disk
    held: Mapping[Family, Buffer]
    is_waiting: bool

    async def gaps(self, now: int) -> list[GapRow]:
        """Return a row for each channel of which rows are left, from the oldest row's receipt until now."""
        parts = self.spool.families.values()
        found = await asyncio.gather(*map(self._oldest, parts))
        pairs = zip(parts, found, strict=True)
        return [row for part, left in pairs if left for row in self._rows(part.family, left, now)]

    def _rows(self, family: Family, left: list[Oldest], now: int) -> Iterator[GapRow]:
        detail = (
            f"held back on the disk of {self.shard} ({self.spool.directory}) when it ended:"
            " not lost if another process takes that volume up"
        )
        sent = [at for oldest in left if (at := _sent_from(oldest.record)) is not None]
        for row in family_gaps(now, family, "storage_full", detail=detail, received_to=now):
            yield row._replace(
                received_from=min(oldest.first_at for oldest in left),
                # One that does not say when it was sent may be the oldest.
                from_ts=min(sent) if len(sent) == len(left) else None,
            )

    async def _oldest(self, part: FamilySpool) -> list[Oldest]:
        """Return the oldest of what this process left, and of each earlier one's run."""
        runs = [
            (run, run.cursor.done if run.cursor else 0)
            for run in part.inherited
            if self.is_waiting and run.header.zone == self.zone
        ]
        left: list[Oldest | None] = []
        if buffer := self.held.get(part.family):
            if buffer.oldest is not None:
                left.append(Oldest(buffer.oldest.first_at, buffer.oldest))
            elif part.run is not None:
                runs.append((part.run, buffer.done))
        left += await asyncio.gather(*(self._look(run, done) for run, done in runs))
        return [oldest for oldest in left if oldest is not None]

    async def _look(self, run: SpoolRun, done: int) -> Oldest | None:
        try:
            return await self.disk.do(lambda: find_oldest(run.path, done), hangs_s=LOOK_S_MAX)
        except (OSError, SpoolRefused) as error:
            log.warning("spool_unreadable", run=run.path.name, error=str(error))
            return Oldest(run.header.opened_at, None)


def _sent_from(record: Record | None) -> int | None:
    """When the first frame of a batch was sent, by the exchange's clock."""
    ranges = ranges_of(record.sealed) if record is not None else ()
    return min((row.sent_from for _, row in ranges), default=None)
