"""What every scenario stands on: one release in one namespace, and what can be asked of it."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from libs.runtime.clock import Clock
from tests.cluster.errors import CommandFailed, NotInTime
from tests.cluster.faults import Faults
from tests.cluster.helm import Helm
from tests.cluster.images import Builder, Images
from tests.cluster.kube import Kube, Object, images_of, is_going, is_ready, name_of
from tests.cluster.names import DATABASE_NAME, SUPERUSER, ZONAL, Names
from tests.cluster.referee import Case, Referee, Verdict
from tests.cluster.values import CHART, DEVELOPMENT, ZONES, release_values, slots_of, write_values
from tests.cluster.waiting import Say, until, until_true

RELEASE = "kalshi-data"
SETTLED_S_MAX = 240.0
SETTLED_EVERY_S = 2.0
STEADY_S_MAX = 180.0
GONE_S_MAX = 180.0
UPGRADE_S_MAX = 300.0
CALM_S = 2.0
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Slots(NamedTuple):
    """slot_assignments of one zone: rows, live ones, different slots of live ones; shards that are alive."""

    rows: int
    live: int
    slots: int
    shards: int


class Ground:
    """The cluster, and the release on it. `since`: from then on every market is heard by every zone (microseconds)."""

    def __init__(
        self, kube: Kube, helms: Sequence[Helm], faults: Faults, labels: Sequence[str], images: Images,
        builder: Builder, clock: Clock, say: Say, scratch: Path,
    ) -> None:  # fmt: skip
        self.kube = kube
        self.helms = list(helms)
        self.helm = helms[-1]
        self.faults = faults
        self.labels = list(labels)
        self.images = images
        self.builder = builder
        self.clock = clock
        self.say = say
        self.names = Names(RELEASE)
        self.referee = Referee(kube, self.names, clock, say)
        self.installed: tuple[str, ...] = ()
        """Gatherers of the release; empty: there is none."""
        self.since = 0
        self.scratch = scratch

    # --- the release ---

    def values(
        self, enabled: Sequence[str], more: Mapping[str, Any] | None = None, images: Images | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """Return the values of a release with these gatherers."""
        return release_values(self.labels, images or self.images, enabled, more)

    def files(
        self, values: Mapping[str, Any], name: str = "values", chart: Path = CHART
    ) -> list[Path]:
        """Return the files to give to helm: the chart's development set, and these values."""
        development = chart / DEVELOPMENT.relative_to(CHART)
        return [development, write_values(self.scratch / f"{name}.yaml", values)]

    @property
    def slots(self) -> int:
        """How many slots each zone has."""
        return slots_of(self.values(ZONES))

    async def make_namespace(self) -> None:
        """Make the namespace, restricted as a careful cluster has it. Raises CommandFailed."""
        metadata = {"name": self.kube.namespace, "labels": RESTRICTED}
        await self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    async def ensure(self, enabled: Sequence[str]) -> None:
        """Have a sound release with exactly these gatherers: the one that is there, upgraded if need be, or a new one."""
        if self.installed == tuple(enabled):
            await self.settle(enabled)
            return
        if self.installed:
            await self.upgrade(enabled)
        else:
            await self.install(enabled, self.helm)
        await self.steady(enabled)

    async def install(
        self, enabled: Sequence[str], helm: Helm, more: Mapping[str, Any] | None = None, chart: Path = CHART
    ) -> float:  # fmt: skip
        """Install and wait until all is ready; return how long helm took, seconds. Raises CommandFailed."""
        begun = self.clock.monotonic()
        await self.make_namespace()
        files = self.files(self.values(enabled, more), chart=chart)
        await helm.install(RELEASE, self.kube.namespace, chart, files)
        self.helm, self.installed = helm, tuple(enabled)
        took = self.clock.monotonic() - begun
        self.say(f"helm {helm.version} install --wait: {took:.0f} s")
        return took

    async def upgrade(
        self, enabled: Sequence[str], more: Mapping[str, Any] | None = None, helm: Helm | None = None
    ) -> None:  # fmt: skip
        """Upgrade to these gatherers and wait until all is ready. Raises CommandFailed."""
        helm = helm or self.helm
        files = self.files(self.values(enabled, more))
        await helm.upgrade(RELEASE, self.kube.namespace, CHART, files, wait_s=UPGRADE_S_MAX)
        self.installed = tuple(enabled)

    async def remove(self) -> None:
        """Leave nothing of the release or its namespace. Raises CommandFailed."""
        self.installed = ()
        await self.helm.uninstall(RELEASE, self.kube.namespace)
        # Connectors would wait for somebody to take their slots over.
        await self.kube("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
        await self.kube.delete_namespace(GONE_S_MAX)

    # --- looking ---

    async def pods(self, component: str, zone: str = "") -> list[Object]:
        """Return a component's pods, also those that are going. Raises CommandFailed."""
        return await self.kube.items("pods", self.names.labels(component, zone))

    async def ready(self, component: str, zone: str = "") -> list[Object]:
        """Return a component's pods that are ready and stay. Raises CommandFailed."""
        return [pod for pod in await self.pods(component, zone) if is_ready(pod)]

    async def sql(self, database: str, query: str) -> list[list[str]]:
        """Ask a zone's database, or `production`, as its superuser in its own pod; rows of text. Raises CommandFailed."""
        words = ("psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", DATABASE_NAME)  # fmt: skip
        said = await self.kube.execute(self.names.database_pod(database), *words, "-c", query)
        return [line.split("\t") for line in said.splitlines()]

    async def number(self, database: str, query: str) -> int:
        """Ask for one number. Raises CommandFailed."""
        ((value,),) = await self.sql(database, query)
        return int(value)

    async def slot_rows(self, zone: str) -> Slots:
        """Return how the zone's slots are assigned. Raises CommandFailed."""
        query = (
            "SELECT count(*), count(*) FILTER (WHERE state = 'live'),"
            " count(DISTINCT slot) FILTER (WHERE state = 'live'),"
            " (SELECT count(*) FROM shards WHERE expires_at > clock_timestamp()) FROM slot_assignments"
        )
        (row,) = await self.sql(zone, query)
        return Slots(*map(int, row))

    async def is_whole(self, zone: str, shards: int | None = None) -> bool:
        """True when every slot of a zone has exactly one row, live; with `shards`, when so many serve them."""
        found = await self.slot_rows(zone)
        wanted = Slots(
            self.slots, self.slots, self.slots, found.shards if shards is None else shards
        )
        return found == wanted

    async def settle(self, zones: Sequence[str], within_s: float = SETTLED_S_MAX) -> float:
        """Wait until every zone's slots are each live once and every workload is ready; return seconds. Raises NotInTime."""

        async def lacking() -> list[str]:
            # Databases are asked last: a program in each of their pods, on a machine that is busy starting others.
            found = await self.unready()
            if found:
                return found
            return [f"slots of {zone}" for zone in zones if not await self.is_whole(zone)]

        begun = self.clock.monotonic()
        what = f"every slot of {', '.join(zones)} live once, all ready"
        await until(
            lacking, lambda found: not found, within_s, what, say=self.say, every_s=SETTLED_EVERY_S
        )
        return self.clock.monotonic() - begun

    async def unready(self) -> list[str]:
        """Return the release's workloads that have not what they want. Raises CommandFailed."""
        found = []
        for item in await self.kube.items("deployments,statefulsets", self.names.labels()):
            wanted, status = item["spec"].get("replicas", 1), item["status"]
            is_old = status.get("observedGeneration", 0) < item["metadata"]["generation"]
            if (
                is_old
                or status.get("readyReplicas", 0) != wanted
                or status.get("replicas", 0) != wanted
            ):
                found.append(name_of(item))
        return found

    async def steady(self, zones: Sequence[str]) -> None:
        """Wait until every zone hears every market, and remember since when. Raises NotInTime, CommandFailed."""
        await self.settle(zones)
        await self.referee.begin()
        deadline = self.clock.monotonic() + STEADY_S_MAX
        while True:
            begun = self.clock.now()
            await asyncio.sleep(2)
            case = Case(begun, no_gap=("production", *zones))
            found = await self.referee.take(case, within_s=0)
            if case.is_met_by(found):
                self.since = begun
                return
            if self.clock.monotonic() > deadline:
                raise NotInTime(
                    f"every market heard by every zone: {found.reasons} {found.told['unplanned_gaps']}"
                )
            self.say(f"... not everything is heard yet: {found.told['unplanned_gaps']}"[:200])

    async def judge(self, case: Case) -> Verdict:
        """Take the verdict after some calm seconds. Raises CommandFailed."""
        await asyncio.sleep(CALM_S)
        return await self.referee.take(case)

    # --- doing ---

    async def gone(self, pods: Sequence[Object], within_s: float = GONE_S_MAX) -> None:
        """Wait until none of these pods is there any more. Raises NotInTime."""
        names = {name_of(pod) for pod in pods}

        async def are_gone() -> bool:
            return not names & {name_of(pod) for pod in await self.kube.items("pods")}

        await until_true(are_gone, within_s, f"{', '.join(sorted(names))} gone", say=self.say)

    async def rolled(self, component: str, zone: str = "", within_s: float = 300) -> None:
        """Wait until a Deployment has all of its new pods and none of the old. Raises CommandFailed."""
        target = f"deployment/{self.names.object(component, zone)}"
        await self.kube(
            "rollout", "status", target, f"--timeout={within_s:.0f}s", timeout_s=within_s + 10
        )

        async def none_goes() -> bool:
            return not any(is_going(pod) for pod in await self.pods(component, zone))

        await until_true(
            none_goes, within_s, f"no {component} of {zone} goes any more", say=self.say
        )

    async def images_in(self, zone: str) -> set[str]:
        """Return the images that a zone's services run, of pods that stay. Raises CommandFailed."""
        pods = [pod for name in ZONAL for pod in await self.pods(name, zone) if not is_going(pod)]
        return images_of(pods)

    async def troubles(self) -> list[str]:
        """Say what is not well in the namespace, for a scenario that failed; never fails itself."""
        found = []
        try:
            for pod in await self.kube.items("pods"):
                if is_ready(pod) or pod["status"].get("phase") == "Succeeded":
                    continue
                found.append(f"{name_of(pod)}: {pod['status'].get('phase')} {_why(pod)}")
                words = ("logs", name_of(pod), "--tail=3", "--all-containers", "--ignore-errors")
                found += [f"    {line[:220]}" for line in (await self.kube(*words)).splitlines()]
        except CommandFailed as error:
            found.append(str(error))
        return found


def _why(pod: Object) -> str:
    """Return why a pod's containers wait."""
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return ", ".join(s["waiting"].get("reason", "") for s in states if "waiting" in s)


async def until_pod(
    ground: Ground, component: str, zone: str, count: int, within_s: float
) -> list[Object]:
    """Wait until a component has so many ready pods, and no other; return them. Raises NotInTime."""
    seen: list[Object] = []

    async def look() -> list[str]:
        seen[:] = await ground.pods(component, zone)
        return [f"{name_of(pod)} {_state(pod)}" for pod in seen]

    def holds(words: list[str]) -> bool:
        return len(words) == count and all(map(is_ready, seen))

    what = f"{count} {component} {zone} ready"
    await until(look, holds, within_s, what, say=ground.say)
    return seen


def _state(pod: Object) -> str:
    return "goes" if is_going(pod) else "ready" if is_ready(pod) else "comes"
