"""Growing a database's volume while it runs: the claim first, then the StatefulSet, which must not remember the old size.

A StatefulSet's claims cannot be changed. So it is taken away without its pod (cascade orphan) and made again with the
new size; it takes the pod up as its own, and nothing restarts. Its description is kept in a file until it is back.
"""

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from libs.runtime.clock import Clock
from services.rollout.cluster import COMPONENT, INSTANCE, ZONE
from services.rollout.errors import AnswerUnreadable, Stopped, ToolFailed, WordsWrong
from services.rollout.tools import Tool

LOOK_S: Final = 3.0
MAKE: Final = "kubectl apply --server-side --field-manager=helm"
"""Every field stays helm's: of what another has made Helm 4 refuses to change a field at the next upgrade."""
GROWN_S_MAX: Final = 1_800.0
"""Seconds until the volume must have its new size: a cloud's disk takes minutes, its file system seconds."""
UNITS: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip


class Volume(NamedTuple):
    """A database's StatefulSet and the claim of its only pod."""

    workload: Mapping[str, Any]
    claim: str
    storage_class: str
    wanted: str
    has: str

    @property
    def name(self) -> str:
        """The StatefulSet's name."""
        return str(self.workload["metadata"]["name"])

    @property
    def template_size(self) -> str:
        """What the StatefulSet would make a new claim with."""
        claims = self.workload["spec"]["volumeClaimTemplates"]
        return str(claims[0]["spec"]["resources"]["requests"]["storage"])

    @property
    def is_held(self) -> bool:
        """Whether its pod is of another version than the StatefulSet's newest: one that is made again has forgotten the old one."""
        status = self.workload.get("status") or {}
        return bool(status.get("currentRevision") != status.get("updateRevision"))


def bytes_of(size: str) -> int:
    """Read a Kubernetes quantity of bytes.

    Raises:
        WordsWrong: it is none.
    """
    number = size.rstrip("".join({letter for unit in UNITS for letter in unit}))
    unit = size[len(number) :]
    try:
        found = float(number)
    except ValueError:
        found = -1.0
    if unit not in UNITS or found <= 0:
        raise WordsWrong(f"{size}: expected a size such as 400Gi or 1Ti")
    return int(found * UNITS[unit])


def grown(workload: Mapping[str, Any], size: str) -> dict[str, Any]:
    """A StatefulSet's description as it is made again: of the new size, without what the API gave it."""
    new: dict[str, Any] = json.loads(json.dumps(workload))
    new.pop("status", None)
    given = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")
    new["metadata"] = {key: value for key, value in new["metadata"].items() if key not in given}
    for claim in new["spec"]["volumeClaimTemplates"]:
        claim.pop("status", None)
        claim["spec"]["resources"]["requests"]["storage"] = size
    return new


async def find_volume(tool: Tool, release: str, component: str, zone: str) -> Volume:
    """Find a database's StatefulSet and claim. release: empty where the namespace has but one.

    Raises:
        Stopped: there is none, or more than one. ToolFailed, AnswerUnreadable: as Tool.
    """
    labels = {INSTANCE: release, COMPONENT: component, ZONE: zone}
    selector = ",".join(f"{name}={value}" for name, value in labels.items() if value)
    found = await tool.json("get", "statefulsets", "--selector", selector, "--output", "json")
    items = found.get("items") or []
    if len(items) != 1:
        raise Stopped(
            f"{len(items)} StatefulSets are {selector}; expected one (RELEASE says of which release)"
        )
    (workload,) = items
    template = workload["spec"]["volumeClaimTemplates"][0]
    claim = f"{template['metadata']['name']}-{workload['metadata']['name']}-0"
    there = await tool.json("get", "persistentvolumeclaims", claim, "--output", "json")
    try:
        return Volume(
            workload,
            claim,
            str(there["spec"].get("storageClassName") or ""),
            str(there["spec"]["resources"]["requests"]["storage"]),
            str(there["status"]["capacity"]["storage"]),
        )
    except (KeyError, TypeError) as error:
        raise AnswerUnreadable(f"claim {claim}: {error!r}; is its volume there yet?") from error


async def grow(
    tool: Tool, volume: Volume, size: str, clock: Clock, say: Callable[[str], None], look_s: float
) -> None:
    """Grow it; run again, it does what is left.

    Raises:
        WordsWrong: it has more already. Stopped: its class cannot grow, or it did not grow in time. ToolFailed: as Tool.
    """
    wanted = bytes_of(size)
    if wanted < bytes_of(volume.wanted):
        raise WordsWrong(f"{volume.claim} is of {volume.wanted}; a volume never shrinks")
    if wanted > bytes_of(volume.wanted):
        kind = await tool.json("get", "storageclass", volume.storage_class, "--output", "json")
        if not kind.get("allowVolumeExpansion"):
            raise Stopped(f"storage class {volume.storage_class} has no allowVolumeExpansion: true")
        patch = json.dumps({"spec": {"resources": {"requests": {"storage": size}}}})
        await tool.run("patch", "persistentvolumeclaims", volume.claim, "--patch", patch)
        say(f"{volume.claim}: {volume.wanted} -> {size}")
    await _wait(tool, volume, wanted, clock, say, look_s)
    if bytes_of(volume.template_size) != wanted:
        if volume.is_held:
            why = "is between two versions, of which one that is made again knows only the new one"
            raise Stopped(
                f"statefulset/{volume.name} {why}; run this again when its zone is released"
            )
        await _remake(tool, volume, size, say)
        say(f"statefulset/{volume.name} made again with {size}; its pod was not touched")


async def _wait(
    tool: Tool, volume: Volume, wanted: int, clock: Clock, say: Callable[[str], None], look_s: float
) -> None:
    """Wait until disk and file system have the size."""
    deadline, said = clock.monotonic() + GROWN_S_MAX, ""
    while True:
        there = await tool.json("get", "persistentvolumeclaims", volume.claim, "--output", "json")
        has = str(there.get("status", {}).get("capacity", {}).get("storage", "0"))
        if has != "0" and bytes_of(has) >= wanted:
            say(f"{volume.claim} has {has}")
            return
        states = [str(one.get("type")) for one in there.get("status", {}).get("conditions") or ()]
        if (now := f"{volume.claim} has {has}, {', '.join(states) or 'not begun'}") != said:
            said = now
            say(said)
        if clock.monotonic() > deadline:
            raise Stopped(f"{said} after {GROWN_S_MAX:g} s; kubectl describe pvc {volume.claim}")
        await asyncio.sleep(look_s)


async def _remake(tool: Tool, volume: Volume, size: str, say: Callable[[str], None]) -> None:
    """Take the StatefulSet away without its pod and make it again; should that fail, the file it is made of stays."""
    file = _kept(volume, size)
    say(f"statefulset/{volume.name} is made again; if this is broken off: {MAKE} -f {file}")
    await tool.run("delete", "statefulset", volume.name, "--cascade=orphan", timeout_s=120)
    try:
        await tool.run(*MAKE.split()[1:], "--filename", str(file))
    except ToolFailed as error:
        where = f"its pod runs on; {MAKE} -f {file} makes it"
        raise Stopped(f"statefulset/{volume.name} is away ({error}); {where}") from error
    _forget(file)


def _kept(volume: Volume, size: str) -> Path:
    """Write what the StatefulSet is made again from."""
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"{volume.name}-", suffix=".json", delete=False, encoding="utf-8"
    ) as file:
        json.dump(grown(volume.workload, size), file)
    return Path(file.name)


def _forget(file: Path) -> None:
    file.unlink(missing_ok=True)
