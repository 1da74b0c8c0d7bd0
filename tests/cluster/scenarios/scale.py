"""5: kubectl scale gatherer/a from 2 to 4 to 1: slots move make-before-break, and an upgrade keeps the number."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.cluster.figures import Figure, equal, of_verdict
from tests.cluster.ground import Ground, until_pod
from tests.cluster.helm import Helm
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.values import ZONES
from tests.cluster.waiting import until, until_true

ZONE = "a"
UP, DOWN = 4, 1
MOVED_S_MAX = 150.0


class Scale(Scenario):
    """Ends with the number it began with."""

    number: ClassVar[int] = 5
    title: ClassVar[str] = "kubectl scale gatherer/a 2 -> 4 -> 1; an upgrade keeps the number"
    timeout_s: ClassVar[float] = 480.0

    async def play(self, ground: Ground) -> list[Figure]:
        since = ground.clock.now()
        figures = []
        for shards in (UP, DOWN):
            await scale(ground, ZONE, shards)
            took = await until_spread(ground, ZONE, shards)
            ground.say(
                f"{shards} shards: every slot live once, spread over all, after {took:.0f} s"
            )
            figures.append(
                equal(f"shards that serve slots at {shards}", await serving(ground, ZONE), shards)
            )
        figures += await keeps_number(ground, ground.helm, ZONE, None)
        await scale(ground, ZONE, 2)
        await until_spread(ground, ZONE, 2)
        await ground.settle(ZONES)
        verdict = await ground.judge(case := Case(since, no_gap=("production", *ZONES)))
        return figures + of_verdict(verdict, case)


async def scale(ground: Ground, zone: str, shards: int) -> None:
    """Say how many connectors a zone is to have. Raises CommandFailed."""
    await ground.kube("scale", f"gatherers.kalshi-data.io/{zone}", f"--replicas={shards}")


async def serving(ground: Ground, zone: str) -> int:
    """Return how many shards have live slots. Raises CommandFailed."""
    query = "SELECT count(DISTINCT shard) FROM slot_assignments WHERE state = 'live'"
    return await ground.number(zone, query)


async def until_spread(ground: Ground, zone: str, shards: int) -> float:
    """Wait until so many pods are there, and serve every slot once between them; return seconds. Raises NotInTime."""
    begun = ground.clock.monotonic()
    await until_pod(ground, "connector", zone, shards, MOVED_S_MAX)

    async def is_spread() -> bool:
        return await ground.is_whole(zone, shards) and await serving(ground, zone) == shards

    await until_true(is_spread, MOVED_S_MAX, f"{shards} shards serve all slots", say=ground.say)
    return ground.clock.monotonic() - begun


async def keeps_number(
    ground: Ground, helm: Helm, zone: str, shards: int | None, more: Mapping[str, Any] | None = None
) -> list[Figure]:
    """Scale a zone (None: it is scaled), upgrade the release (with `more` values), and look at the number.

    The values say no number, as a release that is scaled by kubectl must not.
    """
    if shards is not None:
        await scale(ground, zone, shards)
    before = await _number(ground, zone)
    await ground.upgrade(ground.installed, more, helm)
    after = await _number(ground, zone)

    async def replicas() -> int:
        found = await ground.kube.get("deployment", ground.names.object("connector", zone))
        return int(found["spec"]["replicas"])

    found = await until(
        replicas, lambda count: count == before, MOVED_S_MAX, "the number of connectors"
    )
    what = f"helm {helm.major}: shards before and after an upgrade"
    return [
        Figure(
            what,
            f"{before}, {after}, connectors {found}",
            f"{before} each",
            before == after == found,
        )
    ]


async def _number(ground: Ground, zone: str) -> int:
    found = await ground.kube.get(f"gatherers.kalshi-data.io/{zone}")
    return int(found["spec"]["shards"])
