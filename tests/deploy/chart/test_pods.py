"""Every pod of every scenario: what it may, when it counts as sound, how it goes, where it runs."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.chart.render import Pod, Rendered, render, scenario, scenario_values

ZONED = {"database", "registry", "connector", "poller"}
CENTRAL = {"deduplicator", "archiver", "operator"}
SERVICES = {"registry", "connector", "poller", "deduplicator", "archiver", "operator", "simulator"}
STAYING = {"production", "simulator", "s3"}
"""In-chart helpers of development; production's and the S3 server's volume may hold them to a zone."""
TOKENS = {"operator", "crds"}
"""Who speaks to the Kubernetes API."""
FOREVER = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


def _images(pod: Pod) -> Iterator[str]:
    yield from (container["image"] for container in pod.containers)


def test_pods_obey_the_restricted_profile(release: Rendered) -> None:
    """No root, no capability, no escalation, the runtime's seccomp profile, no way to the node."""
    for pod in release.pods:
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True, pod.name
        assert context["runAsUser"] > 0
        assert context["runAsGroup"] == context["fsGroup"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["fsGroupChangePolicy"] == "OnRootMismatch"
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod.spec)
        kinds = {
            kind for volume in pod.spec.get("volumes", []) for kind in volume if kind != "name"
        }
        assert kinds <= {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
        for container in pod.containers:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in own
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_root_file_systems_are_read_only_but_for_development() -> None:
    """Only readOnlyRootFilesystem: false, which file sync needs, opens those of our own image."""
    for name, writable in (("eks", set()), ("kind", set()), ("everything", {"ours"})):
        for pod in scenario(name).pods:
            for container in pod.containers:
                of = "theirs" if pod.component in {"database", "production", "s3"} else "ours"
                read_only = container["securityContext"]["readOnlyRootFilesystem"]
                assert read_only is (of not in writable), (name, pod.name)


def test_whatever_may_be_written_is_a_volume_with_a_limit(release: Rendered) -> None:
    """An emptyDir without a limit fills the node; /tmp is there for everybody who has HOME there."""
    for pod in release.pods:
        limits = {
            volume["name"]: volume["emptyDir"].get("sizeLimit")
            for volume in pod.spec.get("volumes", [])
            if "emptyDir" in volume
        }
        assert None not in limits.values(), pod.name
        for container in pod.containers:
            mounts = {one["mountPath"]: one for one in container.get("volumeMounts", [])}
            assert "/tmp" in mounts, pod.name
            read_only = {one["name"] for one in mounts.values() if one.get("readOnly")}
            sources = {v["name"] for v in pod.spec["volumes"] if "emptyDir" not in v}
            assert sources <= read_only, pod.name


def test_services_probe_their_loop_and_their_job(release: Rendered) -> None:
    """Startup and liveness ask whether the loop turns, readiness whether the job is done; databases answer SQL."""
    for pod in release.pods:
        if pod.owner["kind"] in {"Job", "Pod"}:
            continue
        for container in pod.spec["containers"]:
            probes = {
                name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")
            }
            if pod.component in SERVICES:
                paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
                assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
                assert {probe["httpGet"]["port"] for probe in probes.values()} == {"health"}
            elif pod.component in {"database", "production"}:
                assert "SELECT 1" in probes["readiness"]["exec"]["command"][-1]
                assert "SELECT" not in json.dumps(probes["liveness"])
            # A start may take long; a running process is not killed for one slow answer.
            startup, liveness = probes["startup"], probes["liveness"]
            assert startup["periodSeconds"] * startup["failureThreshold"] >= 120, pod.name
            assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 60, pod.name


def test_every_container_asks_for_what_it_needs(release: Rendered) -> None:
    """Requests of CPU and memory, a limit of memory, none of CPU; a database's limit is its request."""
    for pod in release.pods:
        for container in pod.containers:
            resources = container["resources"]
            assert set(resources["requests"]) >= {"cpu", "memory"}, pod.name
            assert set(resources["limits"]) == {"memory"}, pod.name
            if pod.component in {"database", "production"}:
                assert resources["limits"]["memory"] == resources["requests"]["memory"]


def test_ports_are_those_of_the_contract(release: Rendered) -> None:
    """By number and name."""
    known = {"health": 8080, "metrics": 9090, "exchange": 8700, "postgres": 5432, "s3": 7070}
    for pod in release.pods:
        for container in pod.containers:
            for port in container.get("ports", []):
                assert known[port["name"]] == port["containerPort"], pod.name
        if pod.component in SERVICES:
            names = [p["name"] for c in pod.containers for p in c["ports"]]
            assert names[:2] == ["health", "metrics"]


def test_images_have_a_version(release: Rendered) -> None:
    """A tag that says what it is, or a digest; never `latest`, never nothing."""
    for pod in release.pods:
        for image in _images(pod):
            name, _, digest = image.partition("@")
            tag = name.rpartition("/")[2].partition(":")[2]
            assert tag or digest.startswith("sha256:"), (pod.name, image)
            assert tag != "latest"


def test_components_may_have_an_image_of_their_own() -> None:
    """A common registry, then each component's own repository, tag or digest; another tag takes the common digest off."""
    images = {pod.component: next(_images(pod)) for pod in scenario("eks").pods}
    registry = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    assert images["connector"] == f"{registry}/kalshi-data:1.0.0"
    assert images["database"] == "timescale/timescaledb:2.29.2-pg17"
    values = scenario_values("eks")
    values["image"]["digest"] = "sha256:" + "a" * 64
    values["archiver"] = {"image": {"tag": "1.0.9"}}
    images = {pod.component: next(_images(pod)) for pod in render(values).pods}
    assert images["poller"] == f"{registry}/kalshi-data@sha256:" + "a" * 64
    assert images["archiver"] == f"{registry}/kalshi-data:1.0.9"


def test_every_pod_runs_as_its_own_account_and_few_get_a_token(release: Rendered) -> None:
    """`kalshi-data-<service>` whatever the release is called; a token only for whoever speaks to the API."""
    for pod in release.pods:
        assert pod.spec["serviceAccountName"] == f"kalshi-data-{pod.component}"
        assert pod.spec["automountServiceAccountToken"] is (pod.component in TOKENS), pod.name
        assert pod.spec["enableServiceLinks"] is False
    for account in release.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_strategies_and_replicas(release: Rendered) -> None:
    """One of each, the old before the new, but for connectors: the operator's number, a new one before an old one goes."""
    for one in release.of("Deployment"):
        spec, component = one["spec"], one["metadata"]["labels"]["app.kubernetes.io/component"]
        # A first installation of a large exchange takes longer than the default of 10 min, at which Helm 4 gives up.
        assert spec["progressDeadlineSeconds"] == 3600
        if component == "connector":
            assert "replicas" not in spec
            assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
            assert spec["minReadySeconds"] == 15
        else:
            assert spec["replicas"] == 1
            assert spec["strategy"] == {"type": "Recreate"}
    for one in release.of("StatefulSet"):
        assert one["spec"]["replicas"] == 1
        retention = one["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert retention == {"whenDeleted": "Retain", "whenScaled": "Retain"}
        # The default replaces no pod that is not ready: a database of a wrong image would stay, whatever is rolled back.
        assert one["spec"]["podManagementPolicy"] == "Parallel"


def test_the_time_to_go_is_enough(release: Rendered) -> None:
    """The connector's hand-over ends within the pod's grace; a database checkpoints before it is told to stop."""
    for pod in release.pods:
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if pod.component in {"database", "production"}:
            assert grace >= 60
            command = pod.spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
            assert command.endswith("CHECKPOINT; kill -INT 1")
        if pod.component == "deduplicator":
            assert grace > 20
    eks = scenario("eks")
    for zone in ("use1a", "use1b", "use1c"):
        assert eks.component("connector", zone).spec["terminationGracePeriodSeconds"] == 600
        assert eks.component("database", zone).spec["terminationGracePeriodSeconds"] == 600


def test_zoned_pods_can_go_nowhere_else_and_central_ones_soon_do(release: Rendered) -> None:
    """Required affinity to the zone and patience for ever, or no zone and patience for half a minute."""
    topology = {zone["name"]: zone["topologyZone"] for zone in release.values["zones"]}
    for pod in release.pods:
        zones = _required(pod, "topology.kubernetes.io/zone")
        patience = {
            one["key"]: one.get("tolerationSeconds")
            for one in pod.spec.get("tolerations", [])
            if one.get("key") in FOREVER
        }
        if pod.component in ZONED:
            assert zones == [topology[pod.zone]], pod.name
            assert patience == dict.fromkeys(FOREVER), pod.name
        if pod.component == "connector":
            (spread,) = pod.spec["topologySpreadConstraints"]
            assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")  # fmt: skip
            assert spread["labelSelector"] == pod.owner["spec"]["selector"]
        if pod.component in CENTRAL:
            assert zones is None
            assert patience == dict.fromkeys(FOREVER, 30), pod.name
        if pod.component == "migrate" and pod.zone:
            assert zones == [topology[pod.zone]]


def _required(pod: Pod, key: str) -> list[str] | None:
    """The values of a node label that every scheduling term demands; None where one does not."""
    terms = (
        pod.spec.get("affinity", {})
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", {})
        .get("nodeSelectorTerms", [])
    )
    found = [
        expression["values"]
        for term in terms
        for expression in term["matchExpressions"]
        if expression["key"] == key and expression["operator"] == "In"
    ]
    return found[0] if found and len(found) == len(terms) else None


def test_nodes_are_chosen_by_role_and_their_taint_is_tolerated(release: Rendered) -> None:
    """The label and the taint have one key and value; without a role any node does."""
    for pod in release.pods:
        key = "nodeRole"
        defaults = release.values["zoneDefaults"]
        role = defaults[key] if pod.component in ZONED or pod.zone else release.values[key]
        tolerated = [
            one["value"]
            for one in pod.spec["tolerations"]
            if one.get("key") == "kalshi-data.io/role"
        ]
        wanted = _required(pod, "kalshi-data.io/role")
        assert (wanted, tolerated) == (([role], [role]) if role else (None, [])), pod.name


def test_databases_and_connectors_go_last(release: Rendered) -> None:
    """Their priority is above everything else's."""
    classes = release.values["priorityClasses"]
    assert classes["capture"]["value"] > classes["other"]["value"]
    for pod in release.pods:
        wanted = "capture" if pod.component in {"database", "connector"} else "other"
        given = pod.spec.get("priorityClassName")
        if pod.component in SERVICES | {"database", "migrate"}:
            assert given == classes[wanted]["name"], pod.name


def test_development_extras_reach_every_container_of_ours() -> None:
    """extraEnv, pod annotations, pull secrets and the collector's address, from the one place where values name them."""
    release = scenario("everything")
    for pod in release.pods:
        assert pod.spec["imagePullSecrets"] == [{"name": "registry"}]
        assert pod.annotations["example.com/team"] == "ticks", pod.name
        if pod.component in SERVICES | {"migrate", "test", "crds"}:
            variables: dict[str, Any] = {
                one["name"]: one.get("value") for c in pod.containers for one in c["env"]
            }
            assert variables["TZ"] == "UTC"
            assert (
                variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.example.internal:4318"
            )
            assert (variables["HOME"], variables["TMPDIR"]) == ("/tmp", "/tmp")
