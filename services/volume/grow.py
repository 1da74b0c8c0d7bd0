"""Growing one volume: the claim first, then the StatefulSet around its running pod; each step may be taken again."""

import asyncio
import copy
from collections.abc import Callable
from typing import ClassVar, Final

from libs.kube.client import MERGE, Json, Kube
from libs.kube.errors import KubeNotFound
from libs.runtime.clock import Clock
from services.volume.size import to_bytes

LOOK_S: Final = 1.0
GONE_S_MAX: Final = 60.0
"""Seconds for the cluster to let the pod go from its StatefulSet, and the StatefulSet itself."""


class VolumeRefused(Exception):
    """The volume cannot be grown so; the message says why and what to do. Nothing was changed."""

    retryable: ClassVar[bool] = False


class VolumeUnfinished(Exception):
    """The cluster has not done its part in time; the message says what is left."""

    retryable: ClassVar[bool] = True


class Growth:
    """One zone's volume and how it grows.

    Args of the constructor: the release and the zone; the size wanted; `say` is told of every step.
    """

    def __init__(
        self,
        kube: Kube,
        release: str,
        zone: str,
        size: str,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self._kube = kube
        self._release = release
        self._zone = zone
        self._size = size
        self._clock = clock
        self._say = say

    async def run(self, wait_s: float) -> None:
        """Grow the volume; return when the file system has its new size.

        Args:
            wait_s: longest to wait for the disk and the file system, seconds.

        Raises:
            VolumeRefused: nothing was changed. VolumeUnfinished: run it again, or wait.
            KubeError: as the API says.
        """
        owner = await self._owner()
        name = f"{_template(owner)['metadata']['name']}-{owner['metadata']['name']}-0"
        claim = await self._kube.request("GET", self._claim(name))
        await self._insist(claim)
        if to_bytes(_asked(claim["spec"])) < to_bytes(self._size):
            body = {"spec": {"resources": {"requests": {"storage": self._size}}}}
            await self._kube.request("PATCH", self._claim(name), body=body, content=MERGE)
            self._say(f"claim {name}: {_asked(claim['spec'])} -> {self._size}")
        if to_bytes(_asked(_template(owner)["spec"])) != to_bytes(self._size):
            await self._make_anew(owner)
        await self._wait(name, wait_s)

    async def _owner(self) -> Json:
        labels = {
            "app.kubernetes.io/instance": self._release,
            "app.kubernetes.io/component": "database",
            "kalshi-data.io/zone": self._zone,
        }
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found = await self._kube.list_all(self._sets(), selector=selector)
        if len(found) != 1:
            raise VolumeRefused(
                f"release {self._release} has {len(found)} databases of zone {self._zone} in namespace"
                f" {self._kube.namespace}; one that an earlier run took away comes back with `helm upgrade`"
            )
        return found[0]

    async def _insist(self, claim: Json) -> None:
        """Refuse what would be smaller, and what cannot grow.

        Raises:
            VolumeRefused: it would, or it cannot.
        """
        has = _asked(claim["spec"])
        if to_bytes(self._size) < to_bytes(has):
            raise VolumeRefused(f"the volume has {has}: it can only grow")
        name = claim["spec"].get("storageClassName", "")
        path = f"/apis/storage.k8s.io/v1/storageclasses/{name}"
        storage_class = await self._kube.request("GET", path)
        if not storage_class.get("allowVolumeExpansion"):
            raise VolumeRefused(f"volumes of the storage class {name} cannot grow")

    async def _make_anew(self, owner: Json) -> None:
        """Take the StatefulSet away, leave its pod, and make it again with claims of the new size."""
        name = owner["metadata"]["name"]
        path = f"{self._sets()}/{name}"
        body = {"propagationPolicy": "Orphan", "preconditions": {"uid": owner["metadata"]["uid"]}}
        await self._kube.request("DELETE", path, body=body)
        until = self._clock.monotonic() + GONE_S_MAX
        while await self._is_there(path, owner["metadata"]["uid"]):
            if self._clock.monotonic() > until:
                raise VolumeUnfinished(f"StatefulSet {name} is still being let go; run this again")
            await asyncio.sleep(LOOK_S)
        await self._kube.request("POST", self._sets(), body=_again(owner, self._size))
        self._say(
            f"StatefulSet {name}: made anew around its running pod, for claims of {self._size}"
        )

    async def _is_there(self, path: str, uid: str) -> bool:
        try:
            found = await self._kube.request("GET", path)
        except KubeNotFound:
            return False
        return bool(found["metadata"]["uid"] == uid)

    async def _wait(self, name: str, wait_s: float) -> None:
        until = self._clock.monotonic() + wait_s
        while True:
            claim = await self._kube.request("GET", self._claim(name))
            status = claim.get("status") or {}
            has = (status.get("capacity") or {}).get("storage", "0")
            if to_bytes(has) >= to_bytes(self._size):
                self._say(f"volume {claim['spec'].get('volumeName', '')}: {has}")
                return
            if self._clock.monotonic() > until:
                told = "; ".join(
                    c.get("message") or c["type"] for c in status.get("conditions") or ()
                )
                raise VolumeUnfinished(f"claim {name} still has {has}: {told or 'nobody grows it'}")
            await asyncio.sleep(LOOK_S)

    def _sets(self) -> str:
        return f"/apis/apps/v1/namespaces/{self._kube.namespace}/statefulsets"

    def _claim(self, name: str) -> str:
        return f"/api/v1/namespaces/{self._kube.namespace}/persistentvolumeclaims/{name}"


def _template(owner: Json) -> Json:
    templates: list[Json] = owner["spec"].get("volumeClaimTemplates") or []
    if len(templates) != 1:
        raise VolumeRefused(f"{owner['metadata']['name']} has {len(templates)} volumes, not one")
    return templates[0]


def _asked(spec: Json) -> str:
    return str(spec["resources"]["requests"]["storage"])


def _again(owner: Json, size: str) -> Json:
    """Return the StatefulSet as it is to be made again: everything that was wished of it, with claims of this size."""
    spec = copy.deepcopy(owner["spec"])
    template = spec["volumeClaimTemplates"][0]
    template["spec"]["resources"]["requests"]["storage"] = size
    template.pop("status", None)
    kept = ("name", "labels", "annotations")
    metadata = {key: owner["metadata"][key] for key in kept if owner["metadata"].get(key)}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}
