"""Virtual time: an event loop that never waits. When nothing is ready, time jumps to the next thing that is due.

Nothing outside the loop can reach it (no sockets, no threads), so a run is a function of what it is given: the same
tasks in the same order at the same moments, however slow the machine is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from libs.marketdata.units import SECOND

T = TypeVar("T")


ROUNDS_MAX = 20_000
"""So many turns of the loop in one moment are no work any more, but something that goes round in circles."""


TURN_S = 1e-6
"""What a hundred turns of one moment take, seconds."""


class Stalled(RuntimeError):
    """The world would stand still for ever: everything waits and nothing is due, or something is busy without end."""


class _Jump:
    """Stands where a loop has its selector: waiting for sockets becomes a step in time."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._rounds = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Stalled("nothing is due and everything waits")
        self._rounds = 0 if timeout else self._rounds + 1
        if self._rounds > ROUNDS_MAX:
            self._rounds = 0
            raise Stalled(f"time stands still: {self._busy()}")
        # Work takes time too: who waits for the last 1e-16 s of something would wait for ever otherwise.
        self._loop.elapsed += timeout or (TURN_S if self._rounds % 100 == 0 else 0.0)
        return []

    def _busy(self) -> str:
        tasks = asyncio.all_tasks(self._loop)
        return "; ".join(sorted(str(task.get_stack(limit=1)) for task in tasks))

    def close(self) -> None:
        """There is nothing to close."""


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is `elapsed`, seconds since it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        self._selector = _Jump(self)

    def time(self) -> float:
        return self.elapsed

    def _process_events(self, event_list: list[Any]) -> None:
        """No socket, no event."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""


def run_virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end in a loop of its own; main is called inside it."""

    async def begin() -> T:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(begin())


class VirtualClock:
    """A wall clock on the running loop's time; its owner, or a fault, may set it wrong.

    Args:
        epoch: wall time when the loop's time is 0, microseconds since 1970. skew: error of this clock, microseconds.
    """

    def __init__(self, epoch: int, skew: int = 0) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoch = epoch
        self.skew = skew

    def now(self) -> int:
        """Wall time, microseconds since the Unix epoch."""
        return self._epoch + self.skew + round(self._loop.time() * SECOND)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._loop.time()
