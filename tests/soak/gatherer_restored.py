"""One of three gatherers becomes an older copy of itself while the deduplicator is away: told, and nothing is lost."""

from dataclasses import dataclass
from typing import ClassVar

from libs.store.pool import connect
from services.local.topology import PRODUCTION
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground
from tests.soak.merging import (
    CALM_S,
    DEDUPLICATOR,
    OfTheMerge,
    events,
    until_caught_up,
    until_merging,
)

TOLD_S_MAX = 60.0


@dataclass
class GathererRestored(OfTheMerge):
    """older_s: how much older the copy is; away_s: for how long before that the deduplicator was dead."""

    name: ClassVar[str] = "gatherer-restored"
    older_s: float = 300.0
    away_s: float = 20.0
    timeout_s: float = 900.0

    async def act(self, ground: Ground) -> None:
        await until_merging(ground)
        await ground.rest(CALM_S)
        self._begun = ground.clock.now()
        await ground.stop_database()
        copy = await ground.copy_database()
        await ground.start_database()
        copied_at = ground.clock.now()
        await ground.rest(self.older_s - self.away_s)
        await until_caught_up(ground)
        await ground.kill(DEDUPLICATOR)
        await ground.rest(self.away_s)
        await ground.stop_database()
        await ground.replace_database(copy)
        await ground.start_database()
        ground.trouble("database_went_back", copied_at, ground.clock.now())
        await ground.rest(CALM_S)
        await ground.revive(DEDUPLICATOR)

        async def told() -> bool:
            return bool(await events(ground, "gatherer_went_back"))

        self._told_s = await ground.until(told, TOLD_S_MAX, "an event row tells of it")
        await ground.until(lambda: _noticed(ground), TOLD_S_MAX, "its writers notice it")
        await until_caught_up(ground)
        self._done = ground.clock.now()
        await ground.rest(CALM_S)

    async def figures(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        told = await events(ground, "gatherer_went_back")
        lost = evidence.missing((self._begun, self._done))
        async with connect(ground.run.target(PRODUCTION)) as conn:
            statuses = [row["status"] for row in await conn.fetch("select status from gatherers")]
            gaps = await conn.fetchval(
                "select count(*) from gaps where reason = 'database_went_back'"
            )
        return [
            Measured("the copy's age", f"{self.older_s:.0f} s", "-", True),
            Measured("told of after", f"{self._told_s:.1f} s", f"< {TOLD_S_MAX:.0f} s", True),
            Measured("events gatherer_went_back", f"{len(told)}: {told[:1]}", "1", len(told) == 1),
            Measured("gap rows of its writers", str(gaps), ">= 1", gaps >= 1),
            Measured("gatherers in production", ", ".join(statuses), "ok", statuses == ["ok"] * 3),
            Measured("deltas and trades that production lost", str(len(lost)), "0", not lost),
        ]  # fmt: skip


async def _noticed(ground: Ground) -> int:
    query = "select count(*) from gaps where reason = 'database_went_back'"
    return int(await ground.value(query))
