"""The steps of a rollout against the real helm and a real Kubernetes API: what it remembers, and what it forgets."""

import json
import os
from pathlib import Path

import pytest

from services.rollout.errors import ReleaseNotThere, ToolFailed
from services.rollout.helm import Helm
from services.rollout.plan import find_start, mark_of
from services.rollout.tools import Tool
from tests.support.kube_api import ADMIN, KubeApi

TEMPLATE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: seen}
data:
  released: {{ toJson .Values.rollout.released | quote }}
  tag: {{ .Values.tag | quote }}
"""


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A chart that shows the values it was given, closed by a schema as ours is."""
    folder = tmp_path / "chart"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: tiny, version: 1.0.0}")
    (folder / "values.yaml").write_text("rollout: {released: null}\ntag: default\n")
    (folder / "templates" / "seen.yaml").write_text(TEMPLATE)
    released = {"type": ["array", "null"], "items": {"type": "string"}}
    rollout = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"released": released},
    }
    schema = {"properties": {"rollout": rollout, "tag": {}}, "additionalProperties": False}
    (folder / "values.schema.json").write_text(json.dumps(schema))
    return folder


@pytest.fixture
def tool(kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tool:
    """The real helm, in a namespace of its own."""
    programs = kube_api.kubectl_program.parent
    if not (programs / "helm").exists():
        pytest.skip(f"{programs} has no helm")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    # Without a controller a namespace that is deleted never goes: each test has another.
    namespace = f"rollout-{tmp_path.name.replace('_', '-')}"
    kube_api.kubectl("create", "namespace", namespace)
    config = kube_api.kubeconfig("rollout", ADMIN, namespace)
    return Tool("helm", ("--kubeconfig", str(config), "--namespace", namespace))


def seen(api: KubeApi, tool: Tool) -> dict[str, str]:
    """What the chart was given last."""
    found = api.kubectl("get", "configmap", "seen", "-o", "json", namespace=tool.common[-1])
    data: dict[str, str] = json.loads(found)["data"]
    return data


async def test_helm_remembers_the_steps(kube_api: KubeApi, chart: Path, tool: Tool) -> None:
    """Lists, then null for good; descriptions and values by revision; the release's other values stay; a failure is told."""
    helm = Helm(tool, "kd")
    with pytest.raises(ReleaseNotThere):
        await helm.history()
    await tool.run("install", "kd", str(chart), "--set", "tag=mine")
    keeping = ("--reset-then-reuse-values",)
    mark = mark_of("f00")
    for released in ([], ["a"], ["a", "b"], None):
        await helm.upgrade(str(chart), keeping, released, f"{mark} {released}")
        assert seen(kube_api, tool) == {
            "released": json.dumps(released).replace(" ", ""),
            "tag": "mine",
        }
    start = find_start("kd", await helm.history(), "f00")
    assert start == (4, 1)
    assert await helm.released(4) == ["a", "b"]
    assert await helm.released(1) is None
    await helm.upgrade(str(chart), keeping, None, f"{mark} all")
    assert seen(kube_api, tool) == {"released": "null", "tag": "mine"}
    assert await helm.released(5) is None
    assert find_start("kd", await helm.history(), "f00") == (5, 1)
    bad = chart / "templates" / "bad.yaml"
    bad.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NotAllowed}\n")
    with pytest.raises(ToolFailed, match="NotAllowed"):
        await helm.upgrade(str(chart), keeping, ["a"], f"{mark} a")
    history = await helm.history()
    # Helm takes the description of what fails: the step before it is where the rollout stands.
    assert [one.status for one in history] == [*["superseded"] * 4, "deployed", "failed"]
    assert find_start("kd", history, "f00") == (5, 1)
