"""One zone's connector as the service puts it together, on a dial and a database in memory; it may die and come back.

Slots, sessions, outlets, pipelines and buffers are the real ones. What the service does beside them (who serves which
slot, which markets are wanted) is done here by the world.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from random import Random
from uuid import UUID

from libs.exchange.errors import AuthRejected
from libs.exchange.transport import TransportSettings
from libs.flow.batch import Limits
from libs.flow.placement import kind_of
from libs.marketdata.tables import Family
from libs.marketdata.units import MILLISECOND, SECOND
from libs.telemetry.metrics import Metrics
from services.connector.buffer import Buffer
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline
from services.connector.slot import Dial, Slot, Wiring
from tests.simulation.database import MemoryDatabase, MemoryLane, as_lane_writer
from tests.simulation.loop import VirtualClock

SLOTS = ("orderbook/0", "orderbook/1", "ticker/0", "trade/0", "lifecycle/0")
PROBE_S = 1.0
ANSWER_S = 2.0
SILENCE_S = 5.0
BACKOFF_S = (0.5, 2.0)
"""Shorter than in production, so that "at most 10 s wider than its cause" is fair, and asked of every single fault.

Before a fault: the last frame of a quiet sid is at most a probe (1 s), the tick that sends it (1 s) and its way old,
and the end margin takes 1 s more. After it: a lost answer is noticed after 2 s, a dead connection after 5 s of silence,
at the next tick (1 s); the pause is at most 2 s, dial, commands and books take less than 1 s, the start margin takes 1 s.
"""
LIMITS = {
    Family.DELTAS: Limits(100, 1 << 20, 300 * MILLISECOND),
    Family.TRADES: Limits(100, 1 << 20, 500 * MILLISECOND),
    Family.TICKERS: Limits(100, 1 << 20, 500 * MILLISECOND),
    Family.REST: Limits(50, 1 << 20, 600 * MILLISECOND),
}
RESTART_S = 1.0
"""How long a process that ended by itself stays away."""
HAND_OVER_S_MAX = 20.0
REJECTED_BYTES_PER_HOUR = 1 << 20

DialOf = Callable[[str], Dial]
"""Slot name -> what dials for it."""


@cache
def metrics() -> Metrics:
    """Counters nobody reads: one set for all worlds, because defining them costs as much as a second of a world."""
    return Metrics("world")


@dataclass(frozen=True, slots=True)
class Build:
    """What differs between gatherers: buffer_rows per family, and chunk, markets per command and books asked for a second.

    A chunk is no smaller than what a slot's markets need in a few seconds, or gaps would be wider for that alone.
    """

    buffer_rows: int
    chunk: int


class Process:
    """One life of a connector.

    Attributes:
        slots: by name; one that is handed over is here only as its successor.
    """

    def __init__(
        self,
        clock: VirtualClock,
        database: MemoryDatabase,
        dial: DialOf,
        build: Build,
        chance: Random,
    ) -> None:
        self._clock = clock
        self._dial = dial
        self.outlets = Outlets(LIMITS, REJECTED_BYTES_PER_HOUR)
        self._lanes = {family: MemoryLane(database, family) for family in Family}
        self.pipelines = {
            family: Pipeline(
                family,
                self.outlets,
                Buffer(family, build.buffer_rows),
                as_lane_writer(self._lanes[family]),
                clock,
                metrics(),
            )
            for family in Family
        }
        self._wiring = Wiring(
            url="",
            signer=lambda: None,
            clock=clock,
            metrics=metrics(),
            outlets=self.outlets,
            pipelines=self.pipelines,
            session=SessionSettings(
                chunk=build.chunk,
                probe=int(PROBE_S * SECOND),
                silence=int(SILENCE_S * SECOND),
                answer=int(ANSWER_S * SECOND),
            ),
            transport=TransportSettings(connect_timeout_s=2.0),
            backoff_s_min=BACKOFF_S[0],
            backoff_s_max=BACKOFF_S[1],
            silence_s_max=SILENCE_S,
            jitter=lambda _: chance.random(),
            new_id=lambda: UUID(int=chance.getrandbits(128)),
        )
        self.slots: dict[str, Slot] = {}
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._writers: dict[Family, asyncio.Task[None]] = {}

    async def run(self, wants: Callable[[str], frozenset[str]]) -> None:
        """Serve all slots until drain() or a cancellation.

        Raises:
            AuthRejected: as the service would exit with.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            for family, pipeline in self.pipelines.items():
                self._writers[family] = group.create_task(pipeline.run())
            for name in SLOTS:
                slot = self.slots[name] = self._slot(name)
                slot.want(wants(name))
                self._start(slot)

    def _slot(self, name: str) -> Slot:
        # Each slot with wiring of its own but for the outlets, so that the dial knows who dials.
        return Slot(name, replace(self._wiring, dial=self._dial(name)))

    def _start(self, slot: Slot) -> None:
        self._tasks[slot] = self._group.create_task(slot.run(), name=slot.name)

    async def hand_over(self, name: str) -> None:
        """Give a slot to a new connection the planned way; the old one stays if that does not come about in time."""
        old, new = self.slots[name], self._slot(name)
        new.want(old.tickers)
        self._start(new)
        self.slots[name] = new
        until = self._clock.monotonic() + HAND_OVER_S_MAX
        heard_from: int | None = None
        while self._clock.monotonic() < until and not self._tasks[old].done():
            await asyncio.sleep(0.5)
            old.want(new.tickers)
            if heard_from is None and new.is_complete:
                heard_from = new.listening_from
            if heard_from is not None and old.release(heard_from):
                old.close("handed over")
                await asyncio.wait((self._tasks.pop(old),))
                return

    def held_since(self) -> float:
        """Seconds of the world since when something may be uncommitted."""
        pipelines = self.pipelines.items()
        held = [self._lanes[f].committed_at for f, p in pipelines if p.buffer or p.batcher.count]
        # What was committed last may have been cut long before, while its commit was in doubt.
        now, wall = self._clock.monotonic(), self._clock.now()
        oldest = [at for _, p in pipelines if (at := p.buffer.oldest_at) is not None]
        held += [now - max(wall - at, 0) / SECOND for at in oldest]
        return min(held, default=now)

    async def drain(self) -> None:
        """Close every slot, then write everything out, the family that carries gaps last."""
        for slot in self._tasks:
            slot.close("drained")
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        for families in ([f for f in Family if f is not Family.REST], [Family.REST]):
            for family in families:
                self.pipelines[family].finish()
            await asyncio.wait([self._writers[f] for f in families])


@dataclass(slots=True)
class Death:
    """A process's end and the next one's start: what was not committed before is lost; seconds of the world."""

    lost_from: float
    until: float
    reason: str


class Gatherer:
    """A zone: its clock, its database, its wanted markets, and whichever process is alive.

    Attributes:
        wanted: markets per order-book slot. deaths: of its processes, the last one's `until` may be open.
    """

    def __init__(
        self, zone: str, clock: VirtualClock, dial: DialOf, build: Build, seed: str
    ) -> None:
        self.zone = zone
        self.clock = clock
        self.database = MemoryDatabase(Random(f"{seed} database"))
        self.wanted: dict[str, frozenset[str]] = {}
        self.deaths: list[Death] = []
        self.process: Process | None = None
        self._dial = dial
        self._build = build
        self._seed = seed
        self._numbers = count(1)
        self._task: asyncio.Task[None] | None = None
        self._pause_s = RESTART_S
        self._done = False

    def serves(self, slot: str) -> bool:
        """True while a process is alive and has begun to serve the slot."""
        return self.process is not None and slot in self.process.slots

    async def run(self) -> None:
        """Keep a process alive until drain()."""
        while not self._done:
            chance = Random(f"{self._seed} process {next(self._numbers)}")
            self.process = Process(self.clock, self.database, self._dial, self._build, chance)
            if self.deaths:
                self.deaths[-1].until = self.clock.monotonic()
            self._task = asyncio.create_task(self.process.run(self._wants))
            await asyncio.wait((self._task,))
            if not self._done:
                self._ended(self._task)
                self.process = None
                await asyncio.sleep(self._pause_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Note a death; a refused key ends the process as it should, anything else is a fault of the client."""
        reason = "killed"
        if not task.cancelled() and (error := task.exception()) is not None:
            group = error if isinstance(error, BaseExceptionGroup) else None
            if group is None or group.split(AuthRejected)[1] is not None:
                raise error
            reason, self._pause_s = "refused key", RESTART_S
        assert self.process is not None
        self.deaths.append(Death(self.process.held_since(), float("inf"), reason))

    def kill(self, pause_s: float) -> None:
        """Let the process die at once, with everything it held; another comes after pause_s."""
        self._pause_s = pause_s
        if self._task is not None:
            self._task.cancel()

    def want(self, slot: str, tickers: frozenset[str]) -> None:
        self.wanted[slot] = tickers
        if self.process is not None and slot in self.process.slots:
            self.process.slots[slot].want(tickers)

    def _wants(self, slot: str) -> frozenset[str]:
        return self.wanted.get(slot, frozenset()) if kind_of(slot) == "orderbook" else frozenset()

    async def drain(self) -> None:
        """End the process the planned way."""
        self._done = True
        if self.process is not None:
            await self.process.drain()
