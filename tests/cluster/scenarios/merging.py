"""7: the deduplicator's pod deleted ten times, production's once: nothing lost, nothing doubled."""

from typing import ClassVar

from tests.cluster.figures import Figure, at_least, equal, of_verdict
from tests.cluster.ground import Ground, until_pod
from tests.cluster.kube import name_of
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.values import ZONES
from tests.cluster.waiting import Look, until_true

TIMES = 10
PRODUCTION_AT = 6
READY_S_MAX = 90.0
MERGE_S_MAX = 60.0


class Merging(Scenario):
    """Between two deletions something is merged, else only the waiting is tried."""

    number: ClassVar[int] = 7
    title: ClassVar[str] = "deduplicator pod deleted ten times, production's database pod once"
    timeout_s: ClassVar[float] = 600.0

    async def play(self, ground: Ground) -> list[Figure]:
        since, merges, names = ground.clock.now(), 0, set()
        for time in range(1, TIMES + 1):
            before = await self._merge_no(ground)
            (pod,) = await until_pod(ground, "deduplicator", "", 1, READY_S_MAX)
            names.add(name_of(pod))
            if time == PRODUCTION_AT:
                await ground.kube(
                    "delete", "pod", ground.names.database_pod("production"), "--wait=false"
                )
                ground.say("production's database pod deleted")
            await ground.kube("delete", "pod", name_of(pod), timeout_s=READY_S_MAX)
            await until_pod(ground, "deduplicator", "", 1, READY_S_MAX)
            await until_true(
                self._merged_since(ground, before),
                MERGE_S_MAX,
                "something is merged",
                say=ground.say,
            )
            merges += 1
            ground.say(f"deduplicator deleted, {time} of {TIMES}")
        verdict = await ground.judge(case := Case(since, no_gap=("production", *ZONES)))
        conflicts = await ground.number("production", "SELECT count(*) FROM conflicts")
        return [
            equal("different pods deleted", len(names), TIMES),
            at_least("times it went on merging", merges, TIMES),
            equal("conflicts in production", conflicts, 0),
            *of_verdict(verdict, case),
        ]

    async def _merge_no(self, ground: Ground) -> int:
        return await ground.number(
            "production", "SELECT coalesce(max(merge_no), 0) FROM writer_lease"
        )

    def _merged_since(self, ground: Ground, before: int) -> Look:
        async def is_merged() -> bool:
            return await self._merge_no(ground) > before

        return is_merged
