"""kill -9 of any process of a zone, and of its database server, at random moments; each is started again.

Meanwhile the exchange does what it should not: faults of its menu, by chance too.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from services.simulator.faults.chance_script import DEFAULT_KINDS, random_faults
from services.simulator.faults.entries import write_entry
from services.simulator.faults.menu import Fault
from tests.soak.evidence import Evidence, Measured, heard_enough
from tests.soak.ground import ZONE, Ground
from tests.soak.scenario import Scenario

DATABASE = "database"
CALM_S = 2.0
FAULT_S_MAX = 10.0
KINDS = sorted(set(DEFAULT_KINDS) - {"auth_expiry", "maintenance", "create_markets"})
"""A refused key ends a registry, as it should without a supervisor; the others are no faults."""


@dataclass
class Kills(Scenario):
    """seconds of it, one about every `every_s`; what is dead is started again within down_s_max.

    fault_every_s: a fault of the exchange about so often; 0: none. gap_s_max: the longest that a market may not be heard.
    """

    name: ClassVar[str] = "kills"
    seconds: float = 300.0
    every_s: float = 4.0
    down_s_max: float = 3.0
    fault_every_s: float = 8.0
    gap_s_max: float = 60.0
    seed: int = 1

    async def act(self, ground: Ground) -> None:
        self._killed: list[str] = []
        self._ended = len(ground.ended)
        self._begun = ground.clock.now()
        chance, everyone = Random(self.seed), [DATABASE, *sorted(ground.run.names(ZONE))]
        up, deck = set(everyone), list[str]()
        self._faults: list[str] = []
        end = ground.clock.monotonic() + self.seconds
        async with asyncio.TaskGroup() as revivals:
            if self.fault_every_s:
                revivals.create_task(self._go_wrong(ground, end), name="faults")
            while ground.clock.monotonic() < end:
                await ground.rest(min(chance.expovariate(1 / self.every_s), 3 * self.every_s))
                # Everyone has his turn, in an order by chance.
                deck = deck or chance.sample(everyone, len(everyone))
                victim = deck.pop()
                if victim not in up:
                    continue
                up.discard(victim)
                self._killed.append(victim)
                ground.say(f"kill -9 {victim}")
                await (ground.kill_database() if victim == DATABASE else ground.kill(victim))
                down_s = chance.uniform(0, self.down_s_max)
                revivals.create_task(self._revive(ground, victim, down_s, up), name=victim)
        took = await ground.until_whole()
        ground.say(f"whole again after {took:.1f} s")
        await ground.rest(CALM_S)
        self._done = ground.clock.now()

    async def _go_wrong(self, ground: Ground, end: float) -> None:
        begun = ground.clock.monotonic()
        for fault in faults(self.seed, self.fault_every_s):
            due = begun + (fault.at_s or 0.0)
            if due > end:
                return
            await asyncio.sleep(due - ground.clock.monotonic())
            self._faults.append(fault.kind)
            await ground.inject(write_entry(replace(fault, at_s=None)))

    async def _revive(self, ground: Ground, victim: str, down_s: float, up: set[str]) -> None:
        await asyncio.sleep(down_s)
        await (ground.start_database() if victim == DATABASE else ground.revive(victim))
        up.add(victim)

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        span = range(self._begun, self._done)
        stored = sum(fact.moment in span for fact in evidence.stored.delta_facts())
        by_itself = len(ground.ended) - self._ended
        counts = {name: self._killed.count(name) for name in sorted(set(self._killed))}
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        return [
            Measured("kill -9", f"{len(self._killed)}: {said}", ">= 1", bool(self._killed)),
            Measured("faults of the exchange", str(len(self._faults)), f"{self._faults}", True),
            Measured("deltas stored of that time", f"{stored:,}", "> 100", stored > 100),
            *heard_enough(evidence, (self._begun, self._done), self.gap_s_max),
            Measured("processes that ended by themselves", str(by_itself), "0", by_itself == 0),
        ]


def faults(seed: int, every_s: float) -> Iterator[Fault]:
    """Yield faults without end, none of which lasts long."""
    for fault in random_faults(seed, kinds=KINDS, every_s=every_s):
        yield replace(fault, for_s=min(fault.for_s, FAULT_S_MAX))
