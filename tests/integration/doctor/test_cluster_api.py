"""What `doctor --cluster` asks a real Kubernetes API: nodes of every zone, the storage class, and rights it may not have."""

import json

import pytest

from libs.runtime.clock import SystemClock
from libs.runtime.secret import Secret
from libs.runtime.sections import SlotSettings
from services.doctor.cluster.evidence import INSIDE, Evidence
from services.doctor.cluster.look_api import check_api
from services.doctor.cluster.settings import CheckedStore, CheckedZone, ClusterSettings
from tests.support.kube_api import ADMIN, KubeApi

STORE = CheckedStore(database="kalshi", user="kd_status", password=Secret("x"))
SETTINGS = ClusterSettings(
    zones=(
        CheckedZone("a", STORE, topology_zone="z-1", slots=SlotSettings()),
        CheckedZone("b", STORE, topology_zone="z-2"),
    ),
    production=STORE,
    storage_class="gp3",
)


def _cluster(api: KubeApi) -> None:
    """One node, which is ready, in the zone of a; a storage class that cannot grow."""
    node = {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "one", "labels": {"topology.kubernetes.io/zone": "z-1"}},
    }  # fmt: skip
    storage = {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "gp3"},
        "provisioner": "ebs.csi.aws.com", "volumeBindingMode": "WaitForFirstConsumer",
    }  # fmt: skip
    for document in (node, storage):
        api.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    api.kubectl("patch", "node", "one", "--subresource=status", "-p", json.dumps(ready))
    # A real cluster's node controller takes it away.
    api.kubectl("taint", "node", "one", "node.kubernetes.io/not-ready-", "--overwrite")


async def test_nodes_and_storage_class_are_looked_at(
    kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zone without nodes fails, a class that cannot grow is a warning, an API that is away fails on a laptop; an account
    without rights, such as that of a test's pod, skips them.
    """
    monkeypatch.delenv(INSIDE, raising=False)
    _cluster(kube_api)
    config = str(kube_api.kubeconfig("doctor", ADMIN, "default"))
    found = {one.check: one for one in await check_api(Evidence(SETTINGS, SystemClock(), config))}
    assert {check: one.state for check, one in found.items()} == {
        "nodes a": "ok", "nodes b": "fail", "storage class": "warn",
    }  # fmt: skip
    assert "zones with nodes: z-1" in found["nodes b"].found
    away = str(kube_api.kubeconfig("away", ADMIN, "default", port=1))
    found = {one.check: one for one in await check_api(Evidence(SETTINGS, SystemClock(), away))}
    assert {one.state for one in found.values()} == {"fail"}
    inside = Evidence(SETTINGS, SystemClock(), away, is_inside=True)
    assert {one.state for one in await check_api(inside)} == {"skipped"}
    nobody = str(kube_api.kubeconfig("nobody", _token(kube_api), "default"))
    skipped = await check_api(Evidence(SETTINGS, SystemClock(), nobody))
    assert {one.check for one in skipped} == set(found)
    assert {one.state for one in skipped} == {"skipped"}
    assert all("no rights" in one.found for one in skipped)


def _token(api: KubeApi) -> str:
    """Of an account without any right."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}}
    api.kubectl("apply", "-f", "-", stdin=json.dumps(account))
    return api.kubectl("create", "token", "nobody", "--duration=10m").strip()
