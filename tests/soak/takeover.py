"""One of two connectors is killed and stays away: its slots are live elsewhere in less than 15 s."""

from dataclasses import dataclass
from typing import ClassVar

from libs.marketdata.units import SECOND
from tests.soak.evidence import Evidence, Measured, longest_s
from tests.soak.ground import ZONE, Ground
from tests.soak.scenario import Scenario

GIVE_UP_S = 120.0
CALM_S = 3.0


@dataclass
class Takeover(Scenario):
    """times it is done: first to the one that plans, then to another; the victim comes back and gets its share again.

    within_s: how soon its slots are live elsewhere; a machine that does much besides needs longer.
    """

    name: ClassVar[str] = "takeover"
    times: int = 5
    within_s: float = 15.0

    async def act(self, ground: Ground) -> None:
        self._orphans: list[int] = []
        self._rows_s: list[float] = []
        self._frames_s: list[float] = []
        await ground.rest(CALM_S)
        self._begun = ground.clock.now()
        for time in range(self.times):
            names = ground.run.names(ZONE, "connector")
            await self._once(ground, sorted(names)[time % len(names)])
        self._done = ground.clock.now()

    async def _once(self, ground: Ground, victim: str) -> None:
        orphans = [
            row["slot"]
            for row in await ground.rows(
                "select slot from slot_assignments where shard = $1", victim
            )
        ]
        self._orphans.append(len(orphans))
        await ground.kill(victim)
        begun = ground.clock.monotonic()

        async def live() -> bool:
            count = await ground.value(
                "select count(distinct slot) from slot_assignments a join shards s using (shard)"
                " where slot = any($1) and shard <> $2 and state = 'live' and s.expires_at > now()",
                orphans, victim,
            )  # fmt: skip
            return bool(count == len(orphans))

        async def heard() -> bool:
            slots = [h.get("slots", {}) for h in (await ground.healths()).values()]
            return all(
                any(found.get(slot, {}).get("frames") for found in slots) for slot in orphans
            )

        await ground.until(live, GIVE_UP_S, "the dead one's slots are live elsewhere")
        self._rows_s.append(ground.clock.monotonic() - begun)
        await ground.until(
            heard, GIVE_UP_S, "frames of the dead one's slots are received elsewhere"
        )
        self._frames_s.append(ground.clock.monotonic() - begun)
        ground.say(
            f"{len(orphans)} slots of {victim} live elsewhere after {self._rows_s[-1]:.1f} s"
        )
        await ground.revive(victim)
        await ground.until_balanced()
        await ground.rest(CALM_S)

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        rows, frames = max(self._rows_s), max(self._frames_s)
        gaps = evidence.gaps((self._begun - SECOND, self._done))
        bound = f"< {self.within_s:.0f} s"
        return [
            Measured("rows live elsewhere after", f"{rows:.1f} s", bound, rows < self.within_s),
            Measured(
                "frames heard elsewhere after", f"{frames:.1f} s", bound, frames < self.within_s
            ),
            Measured("slots taken over", f"{self._orphans}", ">= 1 each", min(self._orphans) > 0),
            Measured(
                "longest gap of a market",
                f"{longest_s(gaps):.1f} s",
                "> 0 s, has a cause",
                bool(gaps),
            ),
        ]
