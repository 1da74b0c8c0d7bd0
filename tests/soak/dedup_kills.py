"""kill -9 of the deduplicator at random moments while three zones capture: production ends exact."""

import asyncio
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground, Terms
from tests.soak.merging import CALM_S, DEDUPLICATOR, OfTheMerge, until_caught_up, until_merging

STARTS_S_MAX = 1.5


@dataclass
class DedupKills(OfTheMerge):
    """times it is killed: mostly while it merges, sometimes before it has begun; lease_s is what each successor waits."""

    name: ClassVar[str] = "dedup-kills"
    times: int = 200
    merges_s_max: float = 2.0
    lease_s: float = 1.0
    seed: int = 1
    timeout_s: float = 3600.0

    def terms(self) -> Terms:
        lease = {"KALSHI_DATA_DEDUPLICATOR__LEASE_S": str(self.lease_s)}
        return replace(super().terms(), deduplicator=lease)

    async def act(self, ground: Ground) -> None:
        chance = Random(self.seed)
        self._early, self._back_s = 0, list[float]()
        await until_merging(ground)
        for turn in range(self.times):
            await ground.kill(DEDUPLICATOR)
            await ground.revive(DEDUPLICATOR)
            if chance.random() < 0.2:
                self._early += 1
                await asyncio.sleep(chance.uniform(0, STARTS_S_MAX))
            else:
                self._back_s.append(await until_merging(ground))
                await asyncio.sleep(chance.uniform(0, self.merges_s_max))
            if turn % 10 == 9:
                ground.say(f"{turn + 1} of {self.times} kills")
        self._caught_up_s = await until_caught_up(ground)
        await ground.rest(CALM_S)

    async def figures(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        slowest = f"{max(self._back_s, default=0):.1f} s"
        return [
            Measured("kill -9", f"{self.times}, {self._early} of them at its start", "-", True),
            Measured("merging again after", slowest, "-", True),
            Measured("caught up after the last", f"{self._caught_up_s:.1f} s", "-", True),
        ]
