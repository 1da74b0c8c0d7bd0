"""kill -9 of any process of a zone, and of its database server, at random moments; each is started again."""

import asyncio
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from tests.soak.evidence import Evidence, Measured, longest_s
from tests.soak.ground import ZONE, Ground
from tests.soak.scenario import Scenario

DATABASE = "database"
CALM_S = 2.0


@dataclass
class Kills(Scenario):
    """seconds of it, one about every `every_s`; what is dead is started again within down_s_max."""

    name: ClassVar[str] = "kills"
    seconds: float = 300.0
    every_s: float = 4.0
    down_s_max: float = 3.0
    seed: int = 1

    async def act(self, ground: Ground) -> None:
        self._killed: list[str] = []
        self._ended = len(ground.ended)
        self._begun = ground.clock.now()
        chance, up = Random(self.seed), {DATABASE, *ground.run.names(ZONE)}
        end = ground.clock.monotonic() + self.seconds
        async with asyncio.TaskGroup() as revivals:
            while ground.clock.monotonic() < end:
                await ground.rest(min(chance.expovariate(1 / self.every_s), 3 * self.every_s))
                if not up:
                    continue
                victim = chance.choice(sorted(up))
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

    async def _revive(self, ground: Ground, victim: str, down_s: float, up: set[str]) -> None:
        await asyncio.sleep(down_s)
        await (ground.start_database() if victim == DATABASE else ground.revive(victim))
        up.add(victim)

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        gaps = evidence.gaps((self._begun, self._done))
        by_itself = len(ground.ended) - self._ended
        counts = {name: self._killed.count(name) for name in sorted(set(self._killed))}
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        return [
            Measured("kill -9", f"{len(self._killed)}: {said}", ">= 1", bool(self._killed)),
            Measured("longest gap of a market", f"{longest_s(gaps):.1f} s", "has a cause", True),
            Measured("processes that ended by themselves", str(by_itself), "0", by_itself == 0),
        ]
