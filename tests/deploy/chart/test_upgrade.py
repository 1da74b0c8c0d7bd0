"""An upgrade changes nothing that the API forbids to change, and restarts nothing that need not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart.render import CHART, Object, Rendered, render, scenario, scenario_values

MUTABLE = {
    "StatefulSet": {
        "minReadySeconds", "ordinals", "persistentVolumeClaimRetentionPolicy", "replicas", "revisionHistoryLimit",
        "template", "updateStrategy",
    },
    "Deployment": {
        "minReadySeconds", "paused", "progressDeadlineSeconds", "replicas", "revisionHistoryLimit", "strategy", "template",
    },
    "Job": {"activeDeadlineSeconds", "backoffLimit", "parallelism", "suspend", "ttlSecondsAfterFinished"},
}  # fmt: skip
"""What the API lets change of an object's spec."""
THEIRS = {"database", "production", "s3", "simulator"}
"""Pods that run somebody else's software, and the exchange that would be another one after a restart."""


@pytest.fixture
def next_chart(tmp_path: Path) -> Path:
    """The chart under another version, of other code."""
    there = tmp_path / "chart"
    shutil.copytree(CHART, there)
    text = (there / "Chart.yaml").read_text(encoding="utf-8")
    (there / "Chart.yaml").write_text(text.replace("1.0.0", "9.9.9"), encoding="utf-8")
    return there


def _fixed(release: Rendered) -> dict[tuple[str, str], Object]:
    """(kind, name) -> what of the object may never change; hooks are deleted before they come again."""
    found: dict[tuple[str, str], Object] = {}
    for kind, mutable in MUTABLE.items():
        for name, one in release.named(kind).items():
            if "helm.sh/hook" not in one["metadata"].get("annotations", {}):
                found[kind, name] = {k: v for k, v in one["spec"].items() if k not in mutable}
    found |= {("ConfigMap", name): one["data"] for name, one in release.named("ConfigMap").items() if "immutable" in one}  # fmt: skip
    return found


def _changed() -> dict[str, Any]:
    """Values of `kind` in which whatever is often changed is another."""
    values = scenario_values("kind")
    values["podAnnotations"] = {"example.com/team": "ticks"}
    values["image"]["digest"] = "sha256:" + "b" * 64
    values["rollout"] = {"released": ["a"]}
    values["zoneDefaults"]["nodeSelector"] = {"disk": "fast"}
    values["zoneDefaults"]["database"]["resources"] = {"requests": {"memory": "512Mi"}, "limits": {"memory": "512Mi"}}  # fmt: skip
    values["zoneDefaults"]["slots"]["orderbook"] = 12
    values["production"]["image"]["tag"] = "2.0.0"
    values["migrations"] = {"resources": {"limits": {"memory": "256Mi"}}}
    return values


def test_what_may_not_change_keeps_or_is_another_object(next_chart: Path) -> None:
    """Selectors and claims stay; a Job or a configuration that differs bears another name."""
    before, after = _fixed(scenario("kind")), _fixed(render(_changed(), chart=next_chart))
    both = before.keys() & after.keys()
    assert {kind for kind, _ in before.keys() - both} == {"ConfigMap", "Job"}
    assert {kind for kind, _ in both} == {"Deployment", "StatefulSet", "ConfigMap"}
    assert [one for one in both if before[one] != after[one]] == []


def test_new_code_leaves_other_peoples_software_alone(next_chart: Path) -> None:
    """Another version of chart and code, images of their own tags: no template of a database changes; ours do."""
    values = scenario_values("kind")
    own = {"tag": "1.0.0"}
    values["zoneDefaults"]["database"]["image"] |= own
    for one in ("production", "s3server", "simulator"):
        values[one]["image"] = values[one].get("image", {}) | own
    before, after = render(values), render(values, chart=next_chart)
    assert {pod.component for pod in before.pods} > THEIRS
    for old in before.pods:
        if old.owner["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        new = after.component(old.component, old.zone)
        assert (new.owner["spec"]["template"] == old.owner["spec"]["template"]) is (old.component in THEIRS), old.name  # fmt: skip
