"""Renders the chart as helm does, offline: one values file of ci/, or values of a test's own, to parsed objects."""

import copy
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pytest
import yaml

CHART = Path(__file__).parents[3] / "charts" / "kalshi-data"
SCENARIOS = tuple(sorted(path.stem.removesuffix("-values") for path in CHART.glob("ci/*.yaml")))
NAMESPACE = "capture"

Object: TypeAlias = dict[str, Any]


class Pod(NamedTuple):
    """What becomes pods: the object that makes them, and their template.

    name: kind/name of the object. component, zone: of its labels, zone empty where there is none.
    """

    owner: Object
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Object

    @property
    def name(self) -> str:
        """kind/name of the object that makes the pod."""
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def component(self) -> str:
        """What it is."""
        return self.labels["app.kubernetes.io/component"]

    @property
    def zone(self) -> str:
        """The zone it belongs to, empty for none."""
        return self.labels.get("kalshi-data.io/zone", "")

    @property
    def containers(self) -> list[Object]:
        """Init containers and containers."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


class Rendered(NamedTuple):
    """A release as it would be installed.

    values: the chart's defaults with the given ones over them. objects: all but notes. notes: NOTES.txt.
    """

    values: Mapping[str, Any]
    objects: tuple[Object, ...]
    notes: str

    def of(self, *kinds: str) -> list[Object]:
        """The objects of these kinds, in order."""
        return [one for one in self.objects if one["kind"] in kinds]

    def named(self, kind: str) -> dict[str, Object]:
        """The objects of a kind by name."""
        return {one["metadata"]["name"]: one for one in self.of(kind)}

    @property
    def pods(self) -> list[Pod]:
        """Every pod that the release makes."""
        return list(_pods(self.objects))

    def component(self, component: str, zone: str = "") -> Pod:
        """The one pod of this component."""
        (found,) = [pod for pod in self.pods if (pod.component, pod.zone) == (component, zone)]
        return found


def helm() -> Any:
    """The Helm SDK; the test is skipped where it has no wheel."""
    return pytest.importorskip(
        "helm_python", reason="helm-python-sdk has no wheel for this platform: charts unchecked"
    )


def scenario_values(scenario: str) -> dict[str, Any]:
    """The values file of a scenario."""
    return copy.deepcopy(_read_values(scenario))


@functools.cache
def _read_values(scenario: str) -> dict[str, Any]:
    text = (CHART / "ci" / f"{scenario}-values.yaml").read_text(encoding="utf-8")
    values = yaml.load(text, Loader=yaml.CSafeLoader)
    assert isinstance(values, dict)
    return values


@functools.cache
def scenario(name: str, *, is_upgrade: bool = False) -> Rendered:
    """A scenario's render, made once; nobody may change it."""
    return render(scenario_values(name), is_upgrade=is_upgrade)


def render(
    values: Mapping[str, Any],
    *,
    name: str = "kalshi-data",
    is_upgrade: bool = False,
    chart: Path = CHART,
) -> Rendered:
    """Render with a handle of its own: helm changes a chart's handle while it renders.

    Raises:
        helm_python.HelmError: values that the schema refuses, or a template that fails.
    """
    with helm().Chart.load(str(chart)) as loaded:
        # Before render changes the handle.
        merged = loaded.merge_values(copy.deepcopy(dict(values)))
        texts = loaded.render(
            copy.deepcopy(dict(values)),
            name=name,
            namespace=NAMESPACE,
            is_upgrade=is_upgrade,
            is_install=not is_upgrade,
        )
    notes = "".join(text for path, text in texts.items() if path.endswith("NOTES.txt"))
    objects = [
        document
        for path, text in texts.items()
        if path.endswith(".yaml")
        for document in yaml.load_all(text, Loader=_Loader)
        if document
    ]
    return Rendered(merged, tuple(objects), notes)


class _Loader(yaml.CSafeLoader):
    """YAML in which a key that stands twice is an error: Kubernetes takes the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.MarkedYAMLError(
                problem=f"keys stand twice: {twice}", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _pods(objects: tuple[Object, ...]) -> Iterator[Pod]:
    for owner in objects:
        match owner["kind"]:
            case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
                template = owner["spec"]["template"]
            case "CronJob":
                template = owner["spec"]["jobTemplate"]["spec"]["template"]
            case "Pod":
                template = owner
            case _:
                continue
        metadata = template["metadata"]
        yield Pod(owner, metadata["labels"], metadata.get("annotations") or {}, template["spec"])
