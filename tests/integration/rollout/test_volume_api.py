"""A volume that has grown against a real Kubernetes API: the release goes on with the StatefulSet that was made again."""

import json
import os
from pathlib import Path

import pytest

from libs.runtime.clock import SystemClock
from services.rollout.tools import Tool
from services.rollout.volume import find_volume, grow
from tests.cluster.errors import CommandFailed
from tests.cluster.helm import Helm, find_helms
from tests.support.kube_api import ADMIN, KubeApi

TEMPLATE = """
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: kd-database-a
  labels: &labels
    app.kubernetes.io/instance: kd
    app.kubernetes.io/component: database
    kalshi-data.io/zone: a
spec:
  serviceName: kd-database-a
  selector: {matchLabels: *labels}
  template:
    metadata: {labels: *labels}
    spec: {containers: [{name: postgres, image: "{{ .Values.image }}"}]}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        resources: {requests: {storage: "{{ .Values.size }}"}}
"""
CLAIM = "data-kd-database-a-0"
MANIFEST = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": CLAIM},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
}
HAS = {"status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}}
KUBECTL = """#!/bin/sh
# Nobody is here to let go of a StatefulSet's pods, of which there are none.
for word; do shift; [ "$word" = --cascade=orphan ] && word=--cascade=background; set -- "$@" "$word"; done
exec {program} "$@"
"""


@pytest.fixture(params=[3, 4])
async def helm(
    request: pytest.FixtureRequest, kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> Helm:
    """Each version: 4 remembers of every field who made it."""
    monkeypatch.setenv("PATH", f"{kube_api.kubectl_program.parent}:{os.environ['PATH']}")
    try:
        (found,) = [one for one in await find_helms() if one.major == request.param]
    except (CommandFailed, ValueError):
        pytest.skip(f"no Helm {request.param}: name one in HELM{request.param}")
    return found


async def test_the_next_upgrade_takes_the_statefulset_as_its_own(
    helm: Helm, kube_api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another image, without a conflict with whoever made it again."""
    chart, program = tmp_path / "chart", tmp_path / "kubectl"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: tiny, version: 1.0.0}")
    (chart / "templates" / "database.yaml").write_text(TEMPLATE)
    program.write_text(KUBECTL.format(program=kube_api.kubectl_program))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    namespace = f"volume-{helm.major}"
    kube_api.kubectl("create", "namespace", namespace)
    config = kube_api.kubeconfig(namespace, ADMIN, namespace)
    release = ("kd", str(chart), f"--kubeconfig={config}", f"--namespace={namespace}")
    await helm("install", *release, "--set=image=old,size=1Gi")
    kube_api.kubectl("create", "-f", "-", namespace=namespace, stdin=json.dumps(MANIFEST))
    kube_api.kubectl(
        "patch", "pvc", CLAIM, "--subresource=status", "-p", json.dumps(HAS), namespace=namespace
    )  # fmt: skip

    kubectl = Tool(str(program), ("--kubeconfig", str(config)))
    volume = await find_volume(kubectl, "kd", "database", "a")
    said: list[str] = []
    await grow(kubectl, volume, "2Gi", SystemClock(), said.append, 0.01)
    assert said[-1] == "statefulset/kd-database-a made again with 2Gi; its pod was not touched"
    await helm("upgrade", *release, "--set=image=new,size=2Gi")
    made = json.loads(kube_api.kubectl("get", "statefulset", "kd-database-a", "-o", "json", namespace=namespace))  # fmt: skip
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "new"
    (template,) = made["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "2Gi"
