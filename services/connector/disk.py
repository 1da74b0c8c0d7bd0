"""A disk's work in a thread of its own, one piece after the other; a disk that answers nothing holds nobody for ever.

A write may never return (a volume that was detached, a file server that is gone). Whoever asked is told so after a while
and goes on; until that piece returns, everybody else is told at once. What it did in the end is to be looked up then.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

HANGS_S: Final = 10.0
"""Seconds after which a piece of work counts as hanging: far more than 8 MiB and a sync take on a disk that works."""

T = TypeVar("T")


class Disk:
    """See the module. One for each family, so that no thread of one ever touches what another's works on."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._turn = asyncio.Lock()
        self._running: asyncio.Future[Any] | None = None
        self._is_overdue = False

    @property
    def hangs(self) -> bool:
        """True while a piece of work that is overdue has not returned."""
        return self._is_overdue and self._running is not None and not self._running.done()

    async def do(self, work: Callable[[], T], *, hangs_s: float | None = HANGS_S) -> T:
        """Do a piece of work when the one before it has returned, and return what it returns.

        A cancellation, and the end of our patience, leave the piece where it is.

        Args:
            hangs_s: seconds to wait for it, with those before it; None: as long as it takes.

        Raises:
            TimeoutError: it has not returned, or one before it has not; an OSError. Any other error is the work's own.
        """
        if self.hangs and hangs_s is not None:
            raise TimeoutError("the disk does not answer")
        try:
            async with asyncio.timeout(hangs_s):
                return await self._do(work)
        except TimeoutError as error:
            if self._running is None or self._running.done():
                raise
            self._is_overdue = True
            raise TimeoutError(f"the disk has not answered for {hangs_s} s") from error

    async def _do(self, work: Callable[[], T]) -> T:
        async with self._turn:
            if self._running is not None and not self._running.done():
                await asyncio.wait([self._running])
            self._is_overdue = False
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._thread, work)
            self._running = future
            await asyncio.wait([future])
            return future.result()
