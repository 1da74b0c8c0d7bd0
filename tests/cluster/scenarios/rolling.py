"""2: every Deployment of the only enabled zone restarted three times; its database deleted while a connector drains."""

from typing import ClassVar

from tests.cluster.figures import Figure, at_least, equal, of_verdict
from tests.cluster.ground import Ground
from tests.cluster.kube import is_going, name_of
from tests.cluster.names import ZONAL
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.waiting import until

ZONE = "a"
TIMES = 3
DRAIN_S_MAX = 120.0


class Rolling(Scenario):
    """There is no other zone to make up for anything."""

    number: ClassVar[int] = 2
    title: ClassVar[str] = (
        "rollout restart of every Deployment of the only zone, three times; its database deleted in a drain"
    )
    timeout_s: ClassVar[float] = 840.0
    zones: ClassVar[tuple[str, ...]] = (ZONE,)
    fresh: ClassVar[bool] = True

    async def play(self, ground: Ground) -> list[Figure]:
        since = ground.clock.now()
        before = {name_of(pod) for name in ZONAL for pod in await ground.pods(name, ZONE)}
        seen, deleted = set(before), 0
        for time in range(1, TIMES + 1):
            begun = ground.clock.monotonic()
            for name in ZONAL:
                await ground.kube(
                    "rollout", "restart", f"deployment/{ground.names.object(name, ZONE)}"
                )
            if time == 2:
                deleted += await self._delete_database_in_a_drain(ground)
            for name in ZONAL:
                await ground.rolled(name, ZONE)
            await ground.settle((ZONE,))
            seen |= {name_of(pod) for name in ZONAL for pod in await ground.pods(name, ZONE)}
            ground.say(f"restart {time} of {TIMES}: {ground.clock.monotonic() - begun:.0f} s")
        verdict = await ground.judge(case := Case(since, no_gap=("production", ZONE)))
        return [
            at_least("pods replaced", len(seen - before), TIMES * len(before)),
            equal("database pods deleted while a connector drained", deleted, 1),
            *of_verdict(verdict, case),
        ]

    async def _delete_database_in_a_drain(self, ground: Ground) -> int:
        async def draining() -> list[str]:
            return [name_of(pod) for pod in await ground.pods("connector", ZONE) if is_going(pod)]

        going = await until(draining, bool, DRAIN_S_MAX, "a connector drains", every_s=0.3)
        pod = ground.names.database_pod(ZONE)
        await ground.kube("delete", "pod", pod, "--wait=false")
        ground.say(f"{pod} deleted while {going[0]} drains")
        return 1
