"""1: helm install --wait from nothing to all ready, with each helm; helm test; rows from every zone; a fourth gatherer."""

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

from libs.marketdata.units import SECOND
from tests.cluster.errors import CommandFailed
from tests.cluster.figures import Figure, at_least, at_most, equal, of_verdict
from tests.cluster.ground import Ground
from tests.cluster.helm import Helm
from tests.cluster.referee import Case
from tests.cluster.scenario import Scenario
from tests.cluster.scenarios.scale import keeps_number, scale
from tests.cluster.values import ZONES
from tests.cluster.waiting import until

INSTALL_S_MAX = 300.0
FLOW_S_MAX = 120.0
MESSAGES_PER_S = 300.0
LISTED = 2_000
FOURTH = "d"
CONNECTORS, SCALED = 2, 3
QUIET = {"simulator": {"settings": {"rate": 60}}}
"""Four zones are more than a node of two cores carries at the full rate, which the last installation has."""


class Install(Scenario):
    """The release with a fourth zone goes again; the one that stays for those who follow is of the last helm."""

    number: ClassVar[int] = 1
    title: ClassVar[str] = (
        "helm install --wait from nothing, helm test, rows from three zones, a fourth gatherer"
    )
    timeout_s: ClassVar[float] = 960.0
    zones: ClassVar[tuple[str, ...]] = ()

    async def play(self, ground: Ground) -> list[Figure]:
        figures = []
        last = ground.helms[-1]
        if len(ground.helms) == 1:
            ground.say(f"only one helm is here ({last.version}): the other one is not tried")
        for helm in ground.helms[:-1] or ground.helms:
            figures += await installed(ground, helm, QUIET)
            figures += await keeps_number(ground, helm, "b", SCALED, QUIET)
            await scale(ground, "b", CONNECTORS)
            figures += await with_a_fourth(ground)
            await ground.remove()
        figures += await installed(ground, last)
        await ground.steady(ZONES)
        return figures + await flowing(ground)


async def installed(
    ground: Ground, helm: Helm, more: Mapping[str, Any] | None = None
) -> list[Figure]:
    """Install with one helm, and run the release's tests."""
    took = await ground.install(ZONES, helm, more)
    try:
        words = await helm.test(ground.names.release, ground.kube.namespace)
    except CommandFailed:
        # A test pod that succeeds is removed; one that fails stays, with its reasons.
        ground.say(await ground.kube("logs", ground.names.object("test"), "--tail=60"))
        raise
    ground.say(f"helm {helm.version} test: {_phase(words)}")
    return [
        at_most(f"helm {helm.major}: from nothing to all ready", took, INSTALL_S_MAX, " s"),
        Figure(f"helm {helm.major} test", _phase(words), "Succeeded", "Succeeded" in _phase(words)),
    ]


def _phase(words: str) -> str:
    """Return the word helm ends a test with."""
    phases = [
        line.split(":", 1)[1].strip() for line in words.splitlines() if line.startswith("Phase:")
    ]
    return ", ".join(phases) or "no phase"


async def flowing(ground: Ground) -> list[Figure]:
    """Rows of every zone in production, and in the S3 server; the exchange is as lively as it has to be."""
    before = await ground.referee.exchange_state()
    seen = await zones_with_rows(ground, ground.since)

    async def objects() -> int:
        return await ground.number("production", "SELECT count(*) FROM archive_manifests")

    count = await until(
        objects, lambda found: found > 0, FLOW_S_MAX, "objects in the archive", say=ground.say
    )
    proved = await ground.referee.archive_verify()
    ground.say(f"archive: {proved}")
    verdict = await ground.judge(case := Case(ground.since, no_gap=("production", *ZONES)))
    after = await ground.referee.exchange_state()
    seconds = (after["now"] - before["now"]) / SECOND
    published = sum(after["published"].values()) - sum(before["published"].values())
    return [
        equal("zones whose rows are in production", sorted(seen), sorted(ZONES)),
        at_least("objects in the S3 server, proved", count, 1),
        at_least("messages a second to each zone", round(published / seconds), MESSAGES_PER_S),
        at_least("markets", after["markets"], LISTED),
        *of_verdict(verdict, case),
    ]


async def zones_with_rows(ground: Ground, began: int) -> set[str]:
    """Wait until production has rows of every zone, of minutes that lasted at a moment or began later; return whose it has."""
    query = (
        "SELECT DISTINCT z.zone FROM (SELECT DISTINCT unnest(gatherers) AS number FROM coverage_by_minute"
        f" WHERE table_name = 'orderbook_deltas' AND minute > {began - 60 * SECOND}) c"
        " JOIN gatherers z ON z.gatherer = c.number"
    )

    async def zones() -> set[str]:
        return {zone for (zone,) in await ground.sql("production", query)}

    return await until(
        zones, lambda found: found >= set(ZONES), FLOW_S_MAX, "rows of every zone", say=ground.say
    )


async def with_a_fourth(ground: Ground) -> list[Figure]:
    """A gatherer more in the running release captures everything and is merged; nobody else notices."""
    since, four = ground.clock.now(), (*ZONES, FOURTH)
    await ground.upgrade(four, QUIET)
    await ground.steady(four)
    case, own = Case(since, no_gap=("production", *ZONES)), Case(ground.since, no_gap=(FOURTH,))
    verdict, alone = await asyncio.gather(ground.judge(case), ground.judge(own))
    return [
        equal("judged with the fourth", sorted(verdict.told["zones"]), sorted([*four, "production"])),
        *of_verdict(verdict, case),
        equal("gaps of the fourth since it captures", alone.gaps(FOURTH) if own.is_met_by(alone) else alone.reasons, 0),
    ]  # fmt: skip
