"""What is secret lies in Secrets alone, and everybody holds as little of it, and may as little, as its work needs."""

import json
import re

from tests.support.chart.render import Object, Rendered, scenario

SECRET_WORDS = re.compile(r"password|secret|private|token|credential|api.?key", re.IGNORECASE)


def test_no_secret_stands_in_an_environment_or_a_configuration(release: Rendered) -> None:
    """Secrets are files, readable by their group alone; what a variable or a ConfigMap names is at most such a file."""
    for pod in release.pods:
        for container in pod.containers:
            assert "envFrom" not in container
            for variable in container.get("env", []):
                assert "secretKeyRef" not in variable.get("valueFrom", {}), pod.name
                if SECRET_WORDS.search(variable["name"]):
                    assert variable["value"].startswith("/run/secrets/kalshi-data/"), variable
            mounts = {m["name"]: m["mountPath"] for m in container.get("volumeMounts", [])}
            for volume in pod.spec.get("volumes", []):
                source = volume.get("secret") or volume.get("projected")
                if source and volume["name"] in mounts:
                    assert mounts[volume["name"]].startswith("/run/secrets/kalshi-data/")
                    assert source["defaultMode"] & 0o007 == 0
    for one in release.of("ConfigMap"):
        for text in one["data"].values():
            for key, value in re.findall(r'^\s*"?([\w.-]+)"?: *(.*)$', text, re.MULTILINE):
                if SECRET_WORDS.search(key) and "expr" not in key:
                    assert value.startswith("/run/secrets/kalshi-data/"), (key, value)


def test_generated_secrets_reach_no_other_object() -> None:
    """No value of a Secret stands in any other object, in clear or as it is stored."""
    release = scenario("kind")
    values = {
        value
        for one in release.of("Secret")
        for key, value in one["data"].items()
        if key != "username"
    }
    assert len(values) > 20
    others = json.dumps([one for one in release.objects if one["kind"] != "Secret"])
    assert [value for value in values if value in others] == []


def test_each_service_holds_only_its_own_roles() -> None:
    """Who is broken into gives away no more than it needs: the roles of the databases it speaks to."""
    release = scenario("kind")
    name = "kalshi-data"
    wanted = {
        "database": {f"{name}-{{zone}}-superuser"},
        "registry": {f"{name}-{{zone}}-writer", f"{name}-{{zone}}-exchange"},
        "connector": {f"{name}-{{zone}}-writer", f"{name}-{{zone}}-exchange"},
        "poller": {f"{name}-{{zone}}-writer", f"{name}-{{zone}}-exchange"},
        "deduplicator": {f"{name}-production-writer", *(f"{name}-{z}-reader" for z in "abc")},
        "archiver": {f"{name}-production-archiver", f"{name}-s3"},
        "operator": set(),
        "production": {f"{name}-production-superuser"},
        "simulator": {f"{name}-{z}-exchange" for z in "abcd"},
        "s3": {f"{name}-s3"},
        "test": {f"{name}-production-status", *(f"{name}-{z}-status" for z in "abc")},
        "crds": set(),
    }
    for pod in release.pods:
        if pod.component == "migrate":
            continue  # gives every role its password
        held = {
            volume["secret"]["secretName"] for volume in pod.spec["volumes"] if "secret" in volume
        }
        assert held == {one.format(zone=pod.zone) for one in wanted[pod.component]}, pod.name


def test_the_operators_rights_are_its_own_namespace_and_named_objects() -> None:
    """Secrets and scales by name, no wildcard, nothing of the whole cluster but the hook's one definition."""
    release = scenario("eks")
    (role,) = release.of("Role")
    by_resource: dict[str, list[Object]] = {}
    for rule in role["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        for resource in rule["resources"]:
            by_resource.setdefault(resource, []).append(rule)
    (secrets,) = by_resource["secrets"]
    assert secrets["verbs"] == ["get"]
    assert set(secrets["resourceNames"]) == {f"pg-{zone}-planner" for zone in "abc"}
    gatherers = release.of("Gatherer")
    assert {g["spec"]["database"]["secretName"] for g in gatherers} == set(secrets["resourceNames"])
    (scales,) = by_resource["deployments/scale"]
    assert set(scales["resourceNames"]) == {g["spec"]["deployment"] for g in gatherers}
    (cluster,) = release.of("ClusterRole")
    (rule,) = cluster["rules"]
    assert rule["resources"] == ["customresourcedefinitions"]
    assert rule["resourceNames"] == ["gatherers.kalshi-data.io"]
