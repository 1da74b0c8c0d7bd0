"""The release's objects as kubectl shows them: zones, workloads, jobs, pods, and a zone's status out of its registry."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from services.rollout.errors import AnswerUnreadable, Stopped, ToolFailed
from services.rollout.extension import CONTAINER, SCRIPT, UPDATE_S_MAX, Extension, read_extension
from services.rollout.judge import Reading, read_status
from services.rollout.prune import LABEL, read_maps, used_maps
from services.rollout.prune import Map as ConfigMap
from services.rollout.tools import Tool

CONFIG: Final = "/etc/kalshi-data/gatherer.yaml"
STATUS_S_MAX: Final = 60.0
ZONE: Final = "kalshi-data.io/zone"
COMPONENT: Final = "app.kubernetes.io/component"
INSTANCE: Final = "app.kubernetes.io/instance"
HOOK: Final = "helm.sh/hook"
GATHERERS: Final = "gatherers.kalshi-data.io"
KINDS_WITH_PODS: Final = "pods,replicasets,deployments,statefulsets,jobs"


class Workload(NamedTuple):
    """A Deployment or StatefulSet. zone: empty when it belongs to none."""

    kind: str
    name: str
    component: str
    zone: str

    @property
    def address(self) -> str:
        """As kubectl names it."""
        return f"{self.kind.lower()}/{self.name}"


class Job(NamedTuple):
    """A Job of the release. fault: why it has failed for good, empty while it has not."""

    name: str
    is_complete: bool
    fault: str


class Cluster:
    """One release's part of a cluster."""

    def __init__(self, tool: Tool, release: str) -> None:
        self._tool = tool
        self._release = f"{INSTANCE}={release}"

    async def zones(self) -> list[str]:
        """Return the zones of the release, in the order in which they follow. Raises ToolFailed."""
        found = await self._list(GATHERERS, self._release)
        return sorted(str(item["metadata"]["name"]) for item in found)

    async def workloads(self) -> list[Workload]:
        """Return Deployments and StatefulSets, databases first. Raises ToolFailed."""
        found = []
        for item in await self._list("statefulsets,deployments", self._release):
            labels = item["metadata"].get("labels") or {}
            found.append(
                Workload(
                    item["kind"], item["metadata"]["name"], labels.get(COMPONENT, ""), labels.get(ZONE, "")
                )
            )  # fmt: skip
        return sorted(found, key=lambda one: (one.kind != "StatefulSet", one.name))

    async def jobs(self) -> list[Job]:
        """Return the release's own Jobs, hooks not among them. Raises ToolFailed."""
        items = await self._list("jobs", self._release)
        return [
            _job(item) for item in items if HOOK not in (item["metadata"].get("annotations") or {})
        ]

    async def wait_for(self, workload: Workload, timeout_s: float) -> None:
        """Return when all of its pods are new and ready. Raises ToolFailed, ToolTimedOut."""
        await self._tool.run(
            "rollout", "status", workload.address, f"--timeout={int(timeout_s)}s", timeout_s=timeout_s + 30
        )  # fmt: skip

    async def reading(self, zone: str) -> Reading:
        """Return what the zone's registry says of its zone.

        Raises:
            AnswerUnreadable, ToolFailed: there is no registry to ask, or it has no answer.
        """
        pod = await self._ready_pod("registry", zone)
        command = ("--", "kalshi-data", "status", "--json", "--config", CONFIG)
        try:
            text = await self._tool.run("exec", pod, timeout_s=STATUS_S_MAX, behind=command)
        except ToolFailed as error:
            # A database that is away is said in the answer and by the exit status.
            if not error.output.strip():
                raise
            text = error.output
        try:
            document = json.loads(text)
        except ValueError as error:
            raise AnswerUnreadable(f"status of {pod} is no JSON: {error}") from error
        if not isinstance(document, Mapping):
            raise AnswerUnreadable(f"status of {pod} is no document")
        return read_status(document, zone)

    async def update_extension(self, component: str, zone: str) -> Extension:
        """Bring a database's TimescaleDB to its image's version. Raises AnswerUnreadable, ToolFailed."""
        pod = await self._ready_pod(component, zone)
        answer = await self._tool.run(
            "exec", pod, "-c", CONTAINER, timeout_s=UPDATE_S_MAX, behind=("--", "sh", "-c", SCRIPT)
        )
        return read_extension(answer)

    async def config_maps(self) -> tuple[list[ConfigMap], set[str]]:
        """Return the hash-named ConfigMaps, and which are in use. Raises ToolFailed.

        The maps are listed first: what uses one that is made meanwhile is none of theirs.
        """
        maps = read_maps(await self._list("configmaps", f"{self._release},{LABEL}"))
        return maps, used_maps(await self._list(KINDS_WITH_PODS, ""))

    async def forget_maps(self, names: Sequence[str]) -> None:
        """Delete ConfigMaps. Raises ToolFailed."""
        await self._tool.run("delete", "configmaps", "--ignore-not-found", "--wait=false", *names)

    async def _ready_pod(self, component: str, zone: str) -> str:
        """Name the newest ready pod of a component; one that is leaving is none."""
        selector = f"{self._release},{COMPONENT}={component}" + (f",{ZONE}={zone}" if zone else "")
        pods = await self._list("pods", selector)
        ready = [
            (str(pod["metadata"].get("creationTimestamp", "")), str(pod["metadata"]["name"]))
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"] and _is_ready(pod)
        ]
        if not ready:
            raise AnswerUnreadable(f"no pod of {component} {zone} is ready".replace("  ", " "))
        return max(ready)[1]

    async def _list(self, kinds: str, selector: str) -> list[dict[str, Any]]:
        words = ("--selector", selector) if selector else ()
        found = await self._tool.json("get", kinds, *words, "--output", "json")
        items = found.get("items") if isinstance(found, Mapping) else None
        if not isinstance(items, list):
            raise AnswerUnreadable(f"kubectl get {kinds}: no list")
        return items


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _job(item: Mapping[str, Any]) -> Job:
    conditions = {
        one["type"]: str(one.get("message") or one.get("reason") or "")
        for one in item.get("status", {}).get("conditions") or ()
        if one["status"] == "True"
    }
    fault = conditions["Failed"] or "failed" if "Failed" in conditions else ""
    return Job(item["metadata"]["name"], "Complete" in conditions, fault)


def unfinished(jobs: Sequence[Job]) -> list[str]:
    """Names of the Jobs that still work.

    Raises:
        Stopped: one has failed for good.
    """
    for job in jobs:
        if job.fault:
            raise Stopped(
                f"job {job.name} has failed ({job.fault}); kubectl logs job/{job.name} says why. It is not begun again by"
                f" itself: when its cause is mended, kubectl delete job/{job.name}, then run this again"
            )
    return [job.name for job in jobs if not job.is_complete]
