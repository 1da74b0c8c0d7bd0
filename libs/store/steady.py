"""Writing to a lane whose database comes and goes: the same batch again, with growing pauses, until it is committed.

Shared by whoever writes batches. That the database is away is said once, and once that it is back. A lane that is lost
while it is away is waited out the same way, so that nothing but a stop makes a writer give up.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from libs.flow.backoff import Backoff
from libs.store.batches import SealedBatch
from libs.store.errors import StoreUnavailable
from libs.store.lanes import Committed
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

WAIT_S_MIN: Final = 0.2
WAIT_S_MAX: Final = 5.0
STOP_S_MAX: Final = 10.0
"""After the stop signal a database that is away is waited for this long, seconds."""


class Lane(Protocol):
    """What is needed of a LaneWriter."""

    async def write(self, batch: SealedBatch) -> Committed: ...

    async def reopen(self) -> None: ...


class Patience:
    """How one writer waits for its database.

    Args of the constructor: the writer's family, for the log; `now` gives wall time in microseconds; stop bounds the
    waiting (None: only a cancellation ends it); on_wait is called before every pause.
    """

    def __init__(
        self,
        family: str,
        now: Callable[[], int],
        *,
        stop: asyncio.Event | None = None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._family = family
        self._now = now
        self._stop = stop or asyncio.Event()
        self._on_wait = on_wait
        self._backoff = Backoff(WAIT_S_MIN, WAIT_S_MAX)
        self._deadline: int | None = None
        self._said: type[StoreUnavailable] | None = None
        self.is_away = False

    async def pause(self, error: StoreUnavailable) -> None:
        """Wait before the next attempt; a stop ends the pause.

        Raises:
            StoreUnavailable: the error itself: stopping, and the database did not come back in time.
        """
        if self._said is not type(error):
            # Away, and then back without the schema, is two things to mend.
            self.is_away, self._said = True, type(error)
            log.warning("database_away", family=self._family, error=str(error))
        self._on_wait()
        delay = self._backoff.next_delay()
        if not self._stop.is_set():
            await first_of(self._stop, timeout_s=delay)
            return
        now = self._now()
        if self._deadline is None:
            self._deadline = now + int(STOP_S_MAX * 1_000_000)
        if now >= self._deadline:
            raise error
        await asyncio.sleep(min(delay, (self._deadline - now) / 1_000_000))

    def answered(self) -> None:
        """Note that the database did what it was asked to."""
        self._backoff.reset()
        self._deadline = None
        if self.is_away:
            self.is_away, self._said = False, None
            log.info("database_back", family=self._family)


async def write_steadily(lane: Lane, batch: SealedBatch, patience: Patience) -> Committed:
    """Commit a batch on the lane; waits as long as the database is away or in doubt.

    Raises:
        StoreUnavailable: stopping, and the database did not come back in time; not committed, or in doubt.
        LaneLost, StoreConflict, StoreUnsafe: as LaneWriter.write().
    """
    while True:
        try:
            committed = await lane.write(batch)
        except StoreUnavailable as error:
            await patience.pause(error)
        else:
            patience.answered()
            return committed


async def reopen_steadily(lane: Lane, patience: Patience) -> None:
    """Leave a lost lane for a new one; waits as long as the database is away.

    Raises:
        StoreUnavailable: stopping, and the database did not come back in time; call again.
        StoreUnsafe: as LaneWriter.reopen().
    """
    while True:
        try:
            await lane.reopen()
        except StoreUnavailable as error:
            await patience.pause(error)
        else:
            patience.answered()
            return
