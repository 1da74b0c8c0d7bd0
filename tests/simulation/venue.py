"""The simulated exchange in virtual time, with the paths its clients come by.

The exchange is the real core (services.simulator.simulation); here it is given time in rounds, and its lines are carried.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random

from libs.exchange.errors import ClockSkewed, TransportError
from libs.exchange.rest_errors import raise_for_answer
from libs.exchange.signing import Signer
from libs.exchange.transport import Connection, TransportSettings
from libs.marketdata.units import MILLISECOND
from libs.runtime.clock import Clock
from services.connector.slot import Dial
from services.simulator.faults.injector import StepClock
from services.simulator.faults.menu import Fault
from services.simulator.journal import MemoryJournal
from services.simulator.settings import SimulatorSettings
from services.simulator.simulation import Simulation
from tests.simulation.loop import VirtualClock
from tests.simulation.wire import Delays, Path, VirtualConnection

ROUND_S = 0.05
"""Time between two rounds of publishing, seconds; far below every margin, and a world has few thousand of them."""
DIAL_S = (0.02, 0.3)
BASE_S_MAX = 0.08
JITTER_S_MAX = 0.1
"""Ways take up to 180 ms, each direction."""


class Venue:
    """The exchange and everybody connected to it.

    Attributes:
        market, session: its journals. slots: connection number -> (zone, slot) of the client.
        lost: dials that nobody answered, (zone, slot, from, to), microseconds.

    Args of the constructor: lost_dials: share of dials that nobody answers, 0..1. faults: the exchange's script.
    step_clock: sets the clock of clients.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        clock: VirtualClock,
        seed: str,
        lost_dials: float,
        faults: Iterable[Fault],
        step_clock: StepClock,
    ) -> None:
        self.market = MemoryJournal()
        self.session = MemoryJournal()
        self.clock = clock
        self.simulation = Simulation(
            settings, self.market, self.session, clock.now(), faults=faults, step_clock=step_clock
        )
        self.slots: dict[int, tuple[str, str]] = {}
        self.lost: list[tuple[str, str, int, int]] = []
        self._lost_dials = lost_dials
        self._quiet_ms = settings.quiet_ms
        self._skew_max = settings.clock_skew_ms_max * MILLISECOND
        self._seed = seed
        self._paths: dict[int, Path] = {}

    # --- publishing ---

    async def publish(self) -> None:
        """Publish until cancelled."""
        while True:
            self._round()
            await asyncio.sleep(ROUND_S)

    def _round(self) -> None:
        now = self.clock.now()
        while not self.simulation.advance(now):
            pass
        for path in list(self._paths.values()):
            self._flush(path, now)

    async def finish(self) -> None:
        """End publishing, let every sid speak once more, and let that arrive."""
        final = self.simulation.end(self.clock.now()) + self._quiet_ms * MILLISECOND
        while self.clock.now() < final:  # noqa: ASYNC110 - time only passes by sleeping
            await asyncio.sleep(ROUND_S)
        self.simulation.finish(final, self.clock.now())
        await asyncio.sleep(1.0)

    def _flush(self, path: Path, now: int) -> None:
        now_ms = now // MILLISECOND
        if path.line.is_due(now_ms) and (actions := path.line.take(now_ms)):
            path.carry_down(actions)

    # --- connections ---

    def dial_of(self, zone: str, slot: str) -> Dial:
        """Return what dials for one slot of a zone; its key is named as the zone."""
        chance = Random(f"{self._seed} dial {zone} {slot}")

        def dial(
            _url: str, _signer: Signer | None, clock: Clock, settings: TransportSettings
        ) -> AbstractAsyncContextManager[Connection]:
            return self._connection(zone, slot, clock, settings, chance)

        return dial

    @asynccontextmanager
    async def _connection(
        self, zone: str, slot: str, clock: Clock, settings: TransportSettings, chance: Random
    ) -> AsyncIterator[Connection]:
        connection = await self._open(zone, slot, clock, settings, chance)
        try:
            yield connection  # type: ignore[misc]
        finally:
            await connection.close()

    async def _open(
        self, zone: str, slot: str, clock: Clock, settings: TransportSettings, chance: Random
    ) -> VirtualConnection:
        signed_at = clock.now()
        if chance.random() < self._lost_dials:
            began = self.clock.now()
            await asyncio.sleep(settings.connect_timeout_s)
            self.lost.append((zone, slot, began, self.clock.now()))
            raise TransportError(f"no answer in {settings.connect_timeout_s:g} s")
        await asyncio.sleep(chance.uniform(*DIAL_S))
        now = self.clock.now()
        if abs(now - signed_at) > self._skew_max:
            raise ClockSkewed("the exchange refused our timestamp")
        refused = self.simulation.refuse_connect(zone, now)
        if refused is not None:
            raise_for_answer(refused.status, refused.body, {})
            raise TransportError(f"HTTP {refused.status} is no websocket")
        line = self.simulation.connect(zone, f"{zone}:{slot}", now)
        self.slots[line.number] = (zone, slot)
        delays = Delays(chance.random() * BASE_S_MAX, chance.random() * JITTER_S_MAX)
        path = self._paths[line.number] = Path(line, delays, chance, self)
        connection = path.client = VirtualConnection(path, clock)
        return connection

    def receive(self, path: Path, data: bytes) -> None:
        """Take a client's frame."""
        now = self.clock.now()
        path.line.receive(data, now // MILLISECOND)
        self._flush(path, now)

    def answers(self, path: Path) -> bool:
        """Say whether a client's ping is answered."""
        return path.line.answers(self.clock.now() // MILLISECOND)

    def forget(self, path: Path) -> None:
        """Let a line go."""
        self._paths.pop(path.line.number, None)
        self.simulation.disconnect(path.line, self.clock.now())
