"""`kalshi-data volume grow` against a real Kubernetes API; the test plays the cluster's controllers."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from services.volume.command import main
from services.volume.size import to_bytes
from tests.support.kube_api import ADMIN, KubeApi

SPACE = "growing"
NAME = "kalshi-data-database-a"
CLAIM = f"data-{NAME}-0"
LABELS = {
    "app.kubernetes.io/instance": "kalshi-data",
    "app.kubernetes.io/component": "database",
    "kalshi-data.io/zone": "a",
}


class Cluster:
    """The objects of one zone's database, and what controllers would do to them."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self.config = str(api.kubeconfig("volume", ADMIN, SPACE))

    def kubectl(self, *words: str, stdin: str = "") -> str:
        return self._api.kubectl(*words, namespace=SPACE, stdin=stdin)

    def get(self, kind: str, name: str) -> Any:
        return json.loads(self.kubectl("get", kind, name, "-o", "json"))

    def create(self) -> None:
        """Make a class that grows and one that does not, and a database of 10Gi on each: zones a and b."""
        self._api.kubectl("create", "namespace", SPACE)
        objects = [_class("grows", can_grow=True), _class("fixed", can_grow=False)]
        for zone, name in (("a", "grows"), ("b", "fixed")):
            objects += [_set(zone, name), _claim(zone, name)]
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("create", "-f", "-", stdin=document)
        for zone in "ab":
            self.status(zone, "10Gi")

    def status(self, zone: str, size: str) -> None:
        """What the volume's controllers write once the disk has this size."""
        patch = json.dumps({"status": {"phase": "Bound", "capacity": {"storage": size}}})
        claim = CLAIM.replace("-a-", f"-{zone}-")
        self.kubectl("patch", "pvc", claim, "--subresource=status", "--type=merge", "-p", patch)

    def let_go(self) -> None:
        """What the garbage collector does when nothing is left to be orphaned."""
        words = (
            "patch",
            "statefulset",
            NAME,
            "--type=merge",
            "-p",
            '{"metadata":{"finalizers":null}}',
        )
        self.kubectl(*words)


def _class(name: str, *, can_grow: bool) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "example.com/none", "allowVolumeExpansion": can_grow,
    }  # fmt: skip


def _spec(storage_class: str) -> dict[str, Any]:
    return {
        "accessModes": ["ReadWriteOnce"], "storageClassName": storage_class,
        "resources": {"requests": {"storage": "10Gi"}},
    }  # fmt: skip


def _set(zone: str, storage_class: str) -> dict[str, Any]:
    labels = LABELS | {"kalshi-data.io/zone": zone}
    return {
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {
            "name": NAME[:-1] + zone, "labels": labels,
            "annotations": {"meta.helm.sh/release-name": "kalshi-data"},
        },
        "spec": {
            "serviceName": NAME, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "postgres", "image": "postgres"}]},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": _spec(storage_class)}],
        },
    }  # fmt: skip


def _claim(zone: str, storage_class: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM.replace("-a-", f"-{zone}-")},
        "spec": _spec(storage_class) | {"volumeName": f"volume-{zone}"},
    }  # fmt: skip


async def _until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(0.1)


async def test_a_volume_grows_around_its_running_pod(
    kube_api: KubeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """Claim and StatefulSet ask for the new size, everything else of the set stays; smaller or fixed ones are refused."""
    cluster = Cluster(kube_api)
    await asyncio.to_thread(cluster.create)
    before = await asyncio.to_thread(cluster.get, "statefulset", NAME)

    async def command(*words: str) -> tuple[int, str]:
        arguments = ["grow", "--kubeconfig", cluster.config, *words]
        status = await asyncio.to_thread(main, arguments)
        said = capsys.readouterr()
        return status, said.out + said.err

    growing = asyncio.create_task(command("--zone", "a", "--wait-s", "60", "20Gi"))
    await _until(lambda: "deletionTimestamp" in cluster.get("statefulset", NAME)["metadata"])
    assert cluster.get("statefulset", NAME)["metadata"]["finalizers"] == ["orphan"]
    cluster.let_go()
    await _until(lambda: _size(cluster) == "20Gi")
    assert not growing.done()
    cluster.status("a", "20Gi")
    status, said = await growing
    assert status == 0, said
    assert f"claim {CLAIM}: 10Gi -> 20Gi" in said and "volume volume-a: 20Gi" in said
    assert "zones: [{name: a, database: {storage: {size: 20Gi}}}]" in said
    after = await asyncio.to_thread(cluster.get, "statefulset", NAME)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    for part in ("labels", "annotations"):
        assert after["metadata"][part] == before["metadata"][part]
    assert after["spec"]["template"] == before["spec"]["template"]
    claim = await asyncio.to_thread(cluster.get, "pvc", CLAIM)
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    # Again changes nothing; what cannot be is said, and nothing is touched.
    assert (await command("--zone", "a", "20Gi"))[0] == 0
    again = await asyncio.to_thread(cluster.get, "statefulset", NAME)
    assert again["metadata"]["uid"] == after["metadata"]["uid"]
    for words, said in (
        (("--zone", "a", "15Gi"), "has 20Gi: it can only grow"),
        (("--zone", "b", "20Gi"), "storage class fixed cannot grow"),
        (("--zone", "z", "20Gi"), "has 0 databases of zone z"),
        (("--zone", "a", "20 Gi"), "is no size"),
    ):
        found = await command(*words)
        assert found[0] == 2 and said in found[1]


def _size(cluster: Cluster) -> str:
    try:
        found = cluster.get("statefulset", NAME)
    except subprocess.CalledProcessError:
        return ""
    templates = found["spec"]["volumeClaimTemplates"]
    return str(templates[0]["spec"]["resources"]["requests"]["storage"])


def test_sizes_are_those_of_kubernetes() -> None:
    """Binary and decimal units, whole numbers, and nothing else."""
    assert [to_bytes(size) for size in ("1", "2Ki", "3k", "200Gi", "1T")] == [
        1, 2048, 3000, 200 << 30, 10**12,
    ]  # fmt: skip
    for wrong in ("", "1.5Gi", "Gi", "10GB", "-1Gi"):
        with pytest.raises(ValueError, match="is no size"):
            to_bytes(wrong)
