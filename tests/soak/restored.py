"""The zone's database is replaced by an older copy of itself under load: noticed, said, and the merge goes on."""

from dataclasses import dataclass
from typing import ClassVar

from libs.marketdata.units import SECOND
from libs.store.pool import connect
from services.local.topology import PRODUCTION
from services.local.verdict import SLACK
from tests.soak.evidence import Evidence, Measured, longest_s
from tests.soak.ground import Ground
from tests.soak.scenario import Scenario

CALM_S = 3.0
NOTICED_S_MAX = 60.0


@dataclass
class Restored(Scenario):
    """older_s: how much older the copy is when it takes its place; unmerged_s: how much of that production has not got."""

    name: ClassVar[str] = "restored"
    older_s: float = 60.0
    unmerged_s: float = 20.0

    async def act(self, ground: Ground) -> None:
        await ground.rest(CALM_S)
        self._begun = ground.clock.now()
        await ground.stop_database()
        copy = await ground.copy_database()
        await ground.start_database()
        copied_at = ground.clock.now()
        await ground.rest(self.older_s - self.unmerged_s)
        await ground.kill("deduplicator")
        await ground.rest(self.unmerged_s)
        await ground.stop_database()
        await ground.replace_database(copy)
        await ground.start_database()
        await ground.revive("deduplicator")
        ground.trouble("database_went_back", copied_at, ground.clock.now())
        self._noticed_s = await ground.until(lambda: self._told(ground), NOTICED_S_MAX, "noticed")
        ground.say(f"noticed {self._noticed_s:.1f} s after the older copy was there")
        merged = await self._merged(ground)

        async def goes_on() -> bool:
            return await self._merged(ground) > merged + 50

        await ground.until(goes_on, NOTICED_S_MAX, "the deduplicator goes on")
        await ground.until_whole()
        await ground.rest(CALM_S)
        self._done = ground.clock.now()

    async def _told(self, ground: Ground) -> int:
        """Return how many gap rows say so."""
        return int(
            await ground.value("select count(*) from gaps where reason = 'database_went_back'")
        )

    async def _merged(self, ground: Ground) -> int:
        health = await ground.run.health("deduplicator")
        return int(health.get("rows_inserted", 0))

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        told = await self._told(ground)
        gaps = evidence.gaps((self._begun, self._done))
        async with connect(ground.run.target(PRODUCTION)) as conn:
            statuses = [row["status"] for row in await conn.fetch("select status from gatherers")]
            events = [
                row["kind"]
                for row in await conn.fetch("select distinct kind from operational_events")
            ]
        widest, bound = longest_s(gaps), self.unmerged_s + SLACK / SECOND
        lost = evidence.missing((self._begun, self._done))
        return [
            Measured("noticed by the connectors after", f"{self._noticed_s:.1f} s", f"< {NOTICED_S_MAX:.0f} s", True),
            Measured("gap rows database_went_back", str(told), ">= 1", told >= 1),
            Measured("gatherer in production", ", ".join(statuses), "ok", statuses == ["ok"]),
            Measured("events of the deduplicator", ", ".join(sorted(events)) or "none", "told", True),
            Measured("deltas and trades that went with it", str(len(lost)), ">= 1", bool(lost)),
            Measured("longest gap of a market", f"{widest:.1f} s", f"0 .. {bound:.0f} s", 0 < widest < bound),
        ]  # fmt: skip
