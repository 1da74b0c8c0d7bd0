"""The network in memory: a client's end of a websocket, and the path between it and the exchange's line.

Everything takes its time, each connection's own and never the same twice, and what was sent first arrives first.
What a line does not send (stall, half-open) and how it ends (close, reset) is the exchange's business, not the path's.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Protocol

from libs.exchange.errors import ConnectionEnded, TransportError
from libs.exchange.frames import Frame
from libs.runtime.clock import Clock
from services.simulator.line import Action, Close, Line, Ping, Reset


@dataclass(frozen=True, slots=True)
class Delays:
    """One-way delay of a connection, seconds: `base` and up to `jitter` more."""

    base: float
    jitter: float


class Switch(Protocol):
    """Where paths end on the exchange's side."""

    def receive(self, path: "Path", data: bytes) -> None:
        """Take a client's frame."""

    def answers(self, path: "Path") -> bool:
        """Say whether a client's ping is answered."""

    def forget(self, path: "Path") -> None:
        """Let a line go: one side closed it."""


class VirtualConnection:
    """The client's end, with the interface of libs.exchange.transport.Connection."""

    def __init__(self, path: "Path", clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._frames: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._ended: TransportError | None = None
        self.last_heard = clock.monotonic()

    async def receive(self) -> Frame:
        return (await self.receive_many(1))[0]

    async def receive_many(self, count_max: int) -> list[Frame]:
        """As the real one: what is buffered, in order; the end only after the last frame."""
        while not self._frames:
            if self._ended is not None:
                raise self._ended
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self._frames.popleft() for _ in range(min(count_max, len(self._frames)))]
        self.last_heard = self._clock.monotonic()
        return taken

    async def send(self, data: bytes) -> None:
        if self._ended is not None:
            raise self._ended
        self._path.carry_up(data)

    async def ping(self) -> None:
        if self._ended is not None:
            raise self._ended
        self._path.carry_ping()

    @property
    def buffered(self) -> int:
        return len(self._frames)

    @property
    def ended(self) -> TransportError | None:
        return self._ended

    async def close(self) -> None:
        self.end(ConnectionEnded(None, "closed by us"))
        self._path.hang_up()

    # --- the path's side ---

    def arrive(self, actions: list[Action]) -> None:
        """Take what came in one packet."""
        if self._ended is not None:
            return
        now = self._clock.now()
        for action in actions:
            if isinstance(action, bytes):
                self._frames.append(Frame(action, now))
            elif isinstance(action, Close):
                self.end(ConnectionEnded(action.code, action.reason or "closed by the exchange"))
            elif isinstance(action, Reset):
                self.end(ConnectionEnded(None, "ConnectionResetError: reset by the exchange"))
            else:
                assert isinstance(action, Ping)
        self.last_heard = self._clock.monotonic()
        self._arrived.set()

    def pong(self) -> None:
        """Our ping was answered."""
        self.last_heard = self._clock.monotonic()

    def end(self, error: TransportError) -> None:
        if self._ended is None:
            self._ended = error
        self._arrived.set()


class Path:
    """Both directions between one line and one client.

    Args:
        line: the exchange's end. chance: of the delays. owner: what the exchange does with frames and ends.
    """

    def __init__(self, line: Line, delays: Delays, chance: Random, owner: Switch) -> None:
        self.line = line
        self.client: VirtualConnection | None = None
        self._delays = delays
        self._chance = chance
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._down_at = 0.0
        self._up_at = 0.0
        self._is_open = True

    def carry_down(self, actions: list[Action]) -> None:
        """Bring what the line sends to the client; a reset overtakes what is still under way, or does not."""
        assert self.client is not None
        self._down_at = self._arrival(self._down_at)
        at = self._down_at
        if isinstance(actions[-1], Reset) and self._chance.random() < 0.5:
            at, actions = self._loop.time() + self._delays.base, actions[-1:]
        self._loop.call_at(at, self.client.arrive, actions)
        if isinstance(actions[-1], Close | Reset):
            self.cut()

    def carry_up(self, data: bytes) -> None:
        self._up_at = self._arrival(self._up_at)
        self._loop.call_at(self._up_at, self._give, data)

    def carry_ping(self) -> None:
        self._up_at = self._arrival(self._up_at)
        self._loop.call_at(self._up_at, self._answer)

    def hang_up(self) -> None:
        """The client closed: the exchange learns it after the way up."""
        self._up_at = self._arrival(self._up_at)
        self._loop.call_at(self._up_at, self.cut)

    def cut(self) -> None:
        """The exchange lets the line go, whoever wanted it."""
        if self._is_open:
            self._is_open = False
            self._owner.forget(self)

    def _give(self, data: bytes) -> None:
        if self._is_open:
            self._owner.receive(self, data)

    def _answer(self) -> None:
        assert self.client is not None
        if self._is_open and self._owner.answers(self):
            self._down_at = self._arrival(self._down_at)
            self._loop.call_at(self._down_at, self.client.pong)

    def _arrival(self, last: float) -> float:
        delay = self._delays.base + self._chance.random() * self._delays.jitter
        # Never at the same moment: a loop's timers of one moment come in any order.
        return max(last + 1e-6, self._loop.time() + delay)
