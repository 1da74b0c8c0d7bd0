"""Wake-ups: NOTIFY after commits, LISTEN for whoever waits.

A wake-up carries nothing: losing one costs the poll interval. It is a statement of its own, never part of a batch's
transaction (there it is a lock over all commits of the server), and one per 20 ms and process is enough for any number
of commits. The last commit is always told of.
"""

import asyncio
from typing import Any, Final

from libs.store.borrowing import borrow_patiently
from libs.store.error_mapping import unfit_is_away
from libs.store.errors import StoreUnavailable
from libs.store.pool import Pool, PooledConnection, abandon, map_store_errors
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

BATCHES: Final = "kd_batches"
"""Told of after commits of batches."""

INTERVAL_S: Final = 0.02
"""Seconds between two wake-ups of one process, at least."""

RETRY_S: Final = 1.0
"""Seconds between two attempts to listen again."""

PROBE_S: Final = 30.0
"""Seconds after which a silent connection is asked whether it is still there."""

ACQUIRE_S_MAX: Final = 10.0
"""Seconds to wait for a connection of the pool."""


class Notifier:
    """Tells a channel that something was committed, at most once per interval. sent, failed: wake-ups so far."""

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
        """Send wake-ups until stop is set; one that is pending then is still sent."""
        while not stop.is_set():
            await first_of(self._pending, stop)
            await self.send_once()
            await first_of(stop, timeout_s=self._interval_s)
        await self.send_once()

    async def send_once(self) -> bool:
        """Send one wake-up if any was asked for since the last; False when there was none or the database is away."""
        if not self._pending.is_set():
            return False
        # Cleared before the statement: a poke while it runs is about a later commit and needs another one.
        self._pending.clear()
        try:
            async with borrow_patiently(self._pool, ACQUIRE_S_MAX) as conn:
                await conn.execute("select pg_notify($1, '')", self._channel)
        except StoreUnavailable as error:
            self.failed += 1
            log.debug("wake_up_lost", channel=self._channel, error=str(error))
            return False
        self.sent += 1
        return True


class Listener:
    """Keeps a connection listening on a channel; sets `event` at every wake-up and whenever it began to listen anew.

    Whoever waits clears the event first and looks afterwards, so that nothing told in between is missed.
    """

    def __init__(self, pool: Pool, channel: str = BATCHES) -> None:
        self._pool = pool
        self._channel = channel
        self.event = asyncio.Event()
        self.listening = False

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a wake-up, at most timeout_s seconds, and clear it; True when there was one."""
        told = await first_of(self.event, timeout_s=timeout_s)
        self.event.clear()
        return told

    async def run(self, stop: asyncio.Event) -> None:
        """Listen until stop is set; a lost connection is made again, one attempt a second.

        Raises:
            StoreError: what is not worth another attempt (refused).
        """
        while not stop.is_set():
            try:
                await self._listen(stop)
            except StoreUnavailable as error:
                log.warning("listening_lost", channel=self._channel, error=str(error))
            finally:
                self.listening = False
            await first_of(stop, timeout_s=RETRY_S)

    async def _listen(self, stop: asyncio.Event) -> None:
        gone = asyncio.Event()
        with unfit_is_away(), map_store_errors():
            conn = await self._pool.acquire(timeout=ACQUIRE_S_MAX)
            try:
                conn.add_termination_listener(lambda _: gone.set())
                await conn.add_listener(self._channel, self._heard)
                self.listening = True
                self.event.set()
                await self._hold(conn, gone, stop)
            finally:
                # Ended, not given back: it carries our listeners.
                abandon(conn)

    async def _hold(self, conn: PooledConnection, gone: asyncio.Event, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await first_of(gone, stop, timeout_s=PROBE_S)
            if gone.is_set():
                raise StoreUnavailable("the listening connection was closed")
            if not stop.is_set():
                await conn.execute("select 1")

    def _heard(self, *_: Any) -> None:
        self.event.set()
