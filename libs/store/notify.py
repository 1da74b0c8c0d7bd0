"""Wake-ups: NOTIFY after commits, LISTEN for whoever waits.

A wake-up carries nothing: losing one costs the poll interval. It is a statement of its own, never part of a batch's
transaction (there it is a lock over all commits of the server), and one per 20 ms and process is enough for any number
of commits. The last commit is always told of.
"""

import asyncio
from typing import Final

from libs.store.pool import Pool

BATCHES: Final = "kd_batches"
INTERVAL_S: Final = 0.02


class Notifier:
    """Tells a channel that something was committed, at most once per interval."""

    def __init__(self, pool: Pool, channel: str = BATCHES, interval_s: float = INTERVAL_S) -> None:
        self._pool = pool
        self._channel = channel
        self._interval_s = interval_s
        self._pending = asyncio.Event()
        self.sent = 0
        self.failed = 0

    def poke(self) -> None:
        """Ask for a wake-up; never waits."""
        self._pending.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send wake-ups until stop is set, the last one included."""
        raise NotImplementedError


class Listener:
    """Keeps a connection listening on a channel and sets `event` at every wake-up, and after every reconnection."""

    def __init__(self, pool: Pool, channel: str = BATCHES) -> None:
        self._pool = pool
        self._channel = channel
        self.event = asyncio.Event()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a wake-up at most timeout_s and clear it; True when there was one."""
        raise NotImplementedError

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until stop is set; a lost connection is made again, one attempt a second."""
        raise NotImplementedError
