"""Every object of every scenario: of a form the API takes, and pointing only at what is there."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import yaml

from tests.support.chart.kubernetes import faults
from tests.support.chart.policies import matches
from tests.support.chart.render import (
    CHART,
    SCENARIOS,
    Object,
    Pod,
    Rendered,
    scenario,
)

OLDEST, NEWEST = "1.33", "1.37"
FOREIGN = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, whose definitions are not ours to carry; test_monitoring.py looks at them."""
HOOK_POLICY = "helm.sh/hook-delete-policy"


def _definitions() -> dict[str, Object]:
    """Kind -> the openAPI schema of our custom resources, closed as the API server prunes."""
    found = {}
    for path in CHART.glob("crds/*.yaml"):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            (version,) = document["spec"]["versions"]
            found[document["spec"]["names"]["kind"]] = _closed(version["schema"]["openAPIV3Schema"])
    return found


def _closed(schema: Object) -> Object:
    """What openAPI leaves open but the API server drops in silence, is an error here."""
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {name: _closed(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    return closed


def test_the_api_takes_every_object_strictly() -> None:
    """Against the schemas of 1.33 and of the newest, unknown fields refused; ours against their own definitions."""
    definitions = _definitions()
    assert "Gatherer" in definitions
    checked = set()
    told = set()
    for name in SCENARIOS:
        for one in scenario(name).objects:
            kind = one["kind"]
            text = json.dumps(one)
            if kind in FOREIGN or text in told:
                continue
            told.add(text)
            checked.add(kind)
            if kind in definitions:
                jsonschema.Draft202012Validator(definitions[kind]).validate(one)
                continue
            for version in (OLDEST, NEWEST):
                assert list(faults(one, version)) == []
    assert {"Deployment", "StatefulSet", "Job", "NetworkPolicy", "Gatherer", "Role"} <= checked


def test_a_misspelt_field_is_found() -> None:
    """The checks above can fail: for a Deployment, and for a Gatherer."""
    release = scenario("eks")
    deployment = copy.deepcopy(release.of("Deployment")[0])
    deployment["spec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    assert ["imag" in fault for fault in faults(deployment, NEWEST)] == [True]
    gatherer = copy.deepcopy(release.of("Gatherer")[0])
    gatherer["spec"]["shard"] = 2
    validator = jsonschema.Draft202012Validator(_definitions()["Gatherer"])
    assert ["shard" in error.message for error in validator.iter_errors(gatherer)] == [True]


def test_no_object_stands_twice(release: Rendered) -> None:
    """helm applies the later one over the earlier in silence."""
    ids = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in release.objects]
    assert sorted({one for one in ids if ids.count(one) > 1}) == []


def _references(pod: Pod) -> Iterator[tuple[str, str]]:
    """(kind, name) of every object a pod needs."""
    spec = pod.spec
    yield "ServiceAccount", spec["serviceAccountName"]
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
        for source in volume.get("projected", {}).get("sources", []):
            for key, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
                if key in source:
                    yield kind, source[key]["name"]
    for secret in spec.get("imagePullSecrets", []):
        yield "Secret", secret["name"]
    if "priorityClassName" in spec:
        yield "PriorityClass", spec["priorityClassName"]


def _named_by_values(values: Any) -> Iterator[str]:
    """Every name that values give to something made elsewhere."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key in {"existingSecret", "caConfigMap"} and value:
                yield value
            elif key == "existingSecrets":
                yield from filter(None, value.values())
            elif key == "imagePullSecrets":
                yield from (one["name"] for one in value)
            elif key == "priorityClasses" and not value["create"]:
                yield from (value[kind]["name"] for kind in ("capture", "other"))
            else:
                yield from _named_by_values(value)
    elif isinstance(values, list):
        for value in values:
            yield from _named_by_values(value)


def test_every_reference_has_its_object(release: Rendered) -> None:
    """What a pod mounts or runs as is of the release, or named by values as made elsewhere."""
    elsewhere = set(_named_by_values(release.values))
    if release.values["exchange"]["environment"] != "simulator":
        # The account's keys nobody can generate: the documented name, zone by zone.
        elsewhere |= {f"kalshi-data-{zone['name']}-exchange" for zone in release.values["zones"]}
    lost = {
        (pod.name, kind, name)
        for pod in release.pods
        for kind, name in _references(pod)
        if name not in release.named(kind) and name not in elsewhere
    }
    assert lost == set()


def test_keys_that_are_mounted_exist(release: Rendered) -> None:
    """Where a generated Secret or a ConfigMap of the release is mounted by items, it has them."""
    for pod in release.pods:
        for volume in pod.spec.get("volumes", []):
            for kind, field, key in (("Secret", "secret", "secretName"), ("ConfigMap", "configMap", "name")):  # fmt: skip
                source = volume.get(field)
                made = release.named(kind).get(source[key]) if source else None
                if made:
                    wanted = {item["key"] for item in source.get("items", [])}
                    assert wanted <= set(made.get("data") or {}), (pod.name, volume["name"])


def test_every_volume_is_mounted_and_every_mount_has_its_volume(release: Rendered) -> None:
    """A volume nobody mounts is a Secret in a pod that does not need it."""
    for pod in release.pods:
        claims = pod.owner["spec"].get("volumeClaimTemplates", [])
        volumes = {one["name"] for one in pod.spec.get("volumes", [])}
        volumes |= {one["metadata"]["name"] for one in claims}
        mounted = {m["name"] for c in pod.containers for m in c.get("volumeMounts", [])}
        assert volumes == mounted, pod.name


def test_selectors_select_their_own_pods_alone(release: Rendered) -> None:
    """Workloads, Services and budgets: exactly the pods of one component and zone; a Service finds its ports there."""
    makers = release.of("Deployment", "StatefulSet")
    for one in makers:
        selector = one["spec"]["selector"]["matchLabels"]
        chosen = [p for p in release.pods if matches({"matchLabels": selector}, p.labels)]
        assert [p.owner["metadata"]["name"] for p in chosen] == [one["metadata"]["name"]]
        assert set(selector) <= {
            "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component", "kalshi-data.io/zone",
        }  # fmt: skip
    for service in release.of("Service"):
        selector = service["spec"]["selector"]
        (pod,) = [p for p in release.pods if matches({"matchLabels": selector}, p.labels)]
        ports = {p["name"]: p["containerPort"] for c in pod.containers for p in c.get("ports", [])}
        # A service that is not ready still says why; a database that is not is nobody's.
        assert service["spec"].get("publishNotReadyAddresses", False) is ("health" in ports)
        for port in service["spec"]["ports"]:
            assert ports[port["name"]] == port["port"], service["metadata"]["name"]
            assert port["targetPort"] in {port["name"], port["port"]}
    budgets = []
    for budget in release.of("PodDisruptionBudget"):
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert budget["spec"]["maxUnavailable"] == 1
        (pod,) = [p for p in release.pods if matches(budget["spec"]["selector"], p.labels)]
        budgets.append((pod.component, pod.zone))
    assert budgets == [("connector", zone) for zone in release.named("Gatherer")]


def test_every_component_that_listens_has_its_service(release: Rendered) -> None:
    """By its documented name, with all of its ports, so that /health and /metrics of each can be asked for."""
    services = release.named("Service")
    for pod in release.pods:
        ports = [p["name"] for c in pod.containers for p in c.get("ports", [])]
        if ports:
            service = services[pod.owner["metadata"]["name"]]
            assert [p["name"] for p in service["spec"]["ports"]] == ports


def test_hooks_are_deleted_before_they_come_again(release: Rendered) -> None:
    """A hook without a delete policy is in the way of the next upgrade."""
    for one in release.objects:
        annotations = one["metadata"].get("annotations") or {}
        if "helm.sh/hook" in annotations:
            assert "before-hook-creation" in annotations[HOOK_POLICY], one["metadata"]["name"]


def test_the_definitions_hook_has_its_rights_before_it_begins() -> None:
    """Account and rights are hooks of a lower weight, for the release's own come after it; nothing else is one, migrations least."""
    weights = {}
    for one in scenario("eks").objects:
        annotations = one["metadata"].get("annotations") or {}
        if "helm.sh/hook" in annotations and one["kind"] != "Pod":
            assert annotations["helm.sh/hook"] == "pre-upgrade"
            weights[one["kind"]] = int(annotations["helm.sh/hook-weight"])
            assert one["metadata"]["labels"]["app.kubernetes.io/component"] == "crds"
    assert set(weights) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"}
    assert weights["ClusterRole"] < weights["ClusterRoleBinding"] < weights["Job"]
    assert weights["ServiceAccount"] < weights["Job"]


def test_the_peerings_definition_is_for_those_who_want_it() -> None:
    """Kept when the release goes, as others' peerings may rest on it; not there where crds.kopf is false."""
    (definition,) = scenario("eks").of("CustomResourceDefinition")
    assert definition["metadata"]["name"] == "kopfpeerings.kopf.dev"
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert scenario("bare").of("CustomResourceDefinition") == []


def test_every_object_bears_the_common_labels(release: Rendered) -> None:
    """So that everything of a release can be listed; those of a zone bear the zone."""
    for one in release.objects:
        if one["kind"] == "CustomResourceDefinition":  # the whole cluster's
            continue
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "kalshi-data", one["metadata"]["name"]
        assert labels["app.kubernetes.io/instance"] == "kalshi-data"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
    zones = {zone["name"] for zone in release.values["zones"] if zone.get("enabled", True)}
    assert {pod.zone for pod in release.pods} - {""} == zones


def test_generated_secrets_and_configurations_are_kept() -> None:
    """A new password on an old volume locks everyone out; a held pod needs the configuration it was made with."""
    for name in SCENARIOS:
        for one in scenario(name).of("Secret", "ConfigMap"):
            if "-dashboard-" in one["metadata"]["name"]:
                continue
            annotations = one["metadata"]["annotations"]
            assert annotations["helm.sh/resource-policy"] == "keep", one["metadata"]["name"]
