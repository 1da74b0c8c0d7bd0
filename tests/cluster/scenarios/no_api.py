"""4: the Kubernetes API away for a minute while a connector's main process is killed on its node."""

import asyncio
from typing import ClassVar

from libs.marketdata.units import SECOND
from tests.cluster.figures import Figure, at_least, at_most, equal, of_verdict
from tests.cluster.ground import Ground
from tests.cluster.kube import Object, name_of
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.values import ZONES
from tests.cluster.waiting import Look, until, until_true

ZONE, NUMBER = "a", 0
AWAY_S = 60.0
KILL_AFTER_S = 10.0
BACK_S_MAX = 60.0
API_S_MAX = 30.0
TOLD_S_MAX = 90.0
RESTARTED_S = 30
"""How long the killed process's slots may be unheard at most: the exchange's own journal says when they are heard again."""


class NoApi(Scenario):
    """Capture goes on; afterwards every slot has exactly one live row."""

    number: ClassVar[int] = 4
    title: ClassVar[str] = (
        "Kubernetes API away for 60 s, a connector's main process killed on its node"
    )
    timeout_s: ClassVar[float] = 420.0
    breaks: ClassVar[bool] = True

    async def play(self, ground: Ground) -> list[Figure]:
        since = ground.clock.now()
        (pod, *_) = await ground.ready("connector", ZONE)
        before = restarts(pod)
        container = container_id(pod)
        stopped = ground.clock.monotonic()
        try:
            await ground.faults.stop_api()
            stopped = ground.clock.monotonic()
            ground.say("the Kubernetes API is away")
            await asyncio.sleep(KILL_AFTER_S)
            killed = ground.clock.now()
            await ground.faults.kill_process(NUMBER, container)
            ground.say(f"{name_of(pod)}: main process killed")
            await asyncio.sleep(max(0.0, AWAY_S - (ground.clock.monotonic() - stopped)))
        finally:
            away = ground.clock.monotonic() - stopped
            await ground.faults.start_api()
        began = ground.clock.monotonic()
        await until_true(api_answers(ground), API_S_MAX, "the API is back", say=ground.say)
        took = []
        for zone in ZONES:
            left = BACK_S_MAX - (ground.clock.monotonic() - began)
            await until_true(
                whole(ground, zone), max(left, 1.0), f"every slot of {zone} has one live row"
            )
            took.append(ground.clock.monotonic() - began)
        after = await self._told(ground, name_of(pod), before)
        await ground.settle(ZONES)
        trouble = [(ZONE, (killed, killed + RESTARTED_S * SECOND))]
        case = Case(since, trouble=trouble, no_gap=("production", "b", "c"))
        verdict = await ground.judge(case)
        return [
            at_least("seconds without the API", round(away), AWAY_S),
            equal("restarts of the killed connector", after - before, 1),
            at_most("until every slot has exactly one live row", max(took), BACK_S_MAX, " s"),
            *of_verdict(verdict, case),
        ]

    async def _told(self, ground: Ground, name: str, before: int) -> int:
        """Return a pod's restarts when there are more than before: the API knows them once the node has told it again."""

        async def look() -> int:
            return restarts(await ground.kube.get("pod", name))

        what = f"{name} has begun again"
        return await until(look, lambda found: found > before, TOLD_S_MAX, what, say=ground.say)


def restarts(pod: Object) -> int:
    """Return how often a pod's containers began again."""
    return sum(int(status["restartCount"]) for status in pod["status"]["containerStatuses"])


def container_id(pod: Object) -> str:
    """Return the id of a pod's only container, without its scheme."""
    (status,) = pod["status"]["containerStatuses"]
    return str(status["containerID"]).partition("://")[2]


def api_answers(ground: Ground) -> Look:
    """Return a look at whether the API answers."""

    async def answers() -> bool:
        await ground.kube.items("pods")
        return True

    return answers


def whole(ground: Ground, zone: str) -> Look:
    """Return a look at whether a zone's slots each have exactly one live row."""

    async def is_whole() -> bool:
        return await ground.is_whole(zone)

    return is_whole
