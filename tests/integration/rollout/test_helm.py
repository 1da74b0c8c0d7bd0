"""The steps of a rollout against the real helm and a real Kubernetes API: what it remembers, and what it forgets."""

import json
import os
from pathlib import Path

import pytest

from services.rollout.errors import ReleaseNotThere, ToolFailed
from services.rollout.helm import Helm
from services.rollout.plan import Step, description_of, find_start
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
    for step in (Step(()), Step(("a",), "a"), Step(("a", "b"), "b"), Step(None)):
        await helm.upgrade(str(chart), keeping, step.released, description_of("f00", step))
        released = json.dumps(step.released, separators=(",", ":"))
        assert seen(kube_api, tool) == {"released": released, "tag": "mine"}
        number = 2 + (3 if step.released is None else len(step.released))
        assert find_start("kd", await helm.history(), "f00") == (number, step, 1)
    bad = chart / "templates" / "bad.yaml"
    bad.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NotAllowed}\n")
    with pytest.raises(ToolFailed, match="NotAllowed"):
        await helm.upgrade(str(chart), keeping, ["a"], description_of("f00", Step(("a",), "a")))
    history = await helm.history()
    # Helm takes the description of what fails: the step before it is where the rollout stands.
    assert [one.status for one in history] == [*["superseded"] * 4, "deployed", "failed"]
    assert find_start("kd", history, "f00") == (5, Step(None), 1)
    # A rollback, as a rollout that was killed in the middle asks for, is the revision that it goes back to.
    await tool.run("rollback", "kd", "3")
    assert seen(kube_api, tool) == {"released": '["a"]', "tag": "mine"}
    assert find_start("kd", await helm.history(), "f00") == (7, Step(("a",), "a"), 1)
    await tool.run("rollback", "kd", "1")
    assert find_start("kd", await helm.history(), "f00") == (None, Step(()), 8)
