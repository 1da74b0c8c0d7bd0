"""Two deduplicators at once: the second waits and says so, and merges less than 15 s after the first is killed."""

from dataclasses import dataclass
from typing import ClassVar

from libs.store.pool import connect
from services.local.topology import PRODUCTION, process
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground
from tests.soak.merging import CALM_S, DEDUPLICATOR, OfTheMerge, until_caught_up, until_merging

SECOND = "deduplicator-2"
WAITS = "waiting for the lease of another deduplicator"
WITHIN_S = 15.0
GIVE_UP_S = 60.0
GRACE_S = 30.0


@dataclass
class DedupTakeover(OfTheMerge):
    """times it is done, each time to the one that merges; the lease is the default one."""

    name: ClassVar[str] = "dedup-takeover"
    times: int = 6

    async def act(self, ground: Ground) -> None:
        await until_merging(ground)
        config = ground.run.configs.paths[PRODUCTION]
        await ground.run.supervisor.start([process(SECOND, "deduplicator", config)])
        holder, other = DEDUPLICATOR, SECOND
        self._took_s, self._leases_s = list[float](), list[float]()
        for _ in range(self.times):
            await self._until_waiting(ground, other)
            await ground.kill(holder)
            self._leases_s.append(await self._lease_left(ground))
            self._took_s.append(await until_merging(ground, other))
            ground.say(f"{other} merges {self._took_s[-1]:.1f} s after kill -9 of {holder}")
            await ground.revive(holder)
            holder, other = other, holder
        await self._until_waiting(ground, other)
        await ground.drain(SECOND, GRACE_S)
        await until_caught_up(ground)
        await ground.rest(CALM_S)

    async def _until_waiting(self, ground: Ground, name: str) -> None:
        async def waits() -> bool:
            return (await ground.run.health(name)).get("reason") == WAITS

        await ground.until(waits, GIVE_UP_S, f"{name} says that it waits for the lease")

    async def _lease_left(self, ground: Ground) -> float:
        """Seconds that the dead one's lease still lasts, by production's clock."""
        async with connect(ground.run.target(PRODUCTION)) as conn:
            left = "select extract(epoch from expires_at - clock_timestamp())::float8 from writer_lease"
            return float(await conn.fetchval(left))

    async def figures(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        took, lease = max(self._took_s), max(self._leases_s)
        async with connect(ground.run.target(PRODUCTION)) as conn:
            epoch = await conn.fetchval("select epoch from writer_lease")
        return [
            Measured("take-overs", str(self.times), "-", True),
            Measured("the dead one's lease lasted", f"{lease:.1f} s at most", "<= 10 s", lease <= 10),
            Measured("the other one merged after", f"{took:.1f} s", f"< {WITHIN_S:.0f} s", took < WITHIN_S),
            Measured("epochs", str(epoch), f">= {self.times + 1}", epoch > self.times),
        ]  # fmt: skip
