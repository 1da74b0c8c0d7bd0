"""skaffold.yaml says what is there: the suite does not run skaffold, so every name in it is looked up."""

import json
import re
from typing import Any

import jsonschema
import pytest

from tests.deploy.dockerfiles import DOCKERFILE, last, lineage, stages
from tests.deploy.locks import ROOT
from tests.deploy.skaffolds import SCHEMA, SITE_VALUES, artifacts, read, release, with_profiles
from tests.support.chart import render

VARIANTS = {"kind": ("kind",), "dev": ("kind", "sync"), "eks": ("eks",)}
CHART = ROOT / "charts" / "kalshi-data"


@pytest.fixture(params=sorted(VARIANTS))
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The configuration as one of the profiles makes it."""
    return with_profiles(*VARIANTS[request.param])


def test_it_obeys_skaffolds_own_schema(config: dict[str, Any]) -> None:
    """The file, and what its patches make of it, are valid v4beta14; an unknown key would not be."""
    if not SCHEMA.exists():
        pytest.skip("NOT PROVED: skaffold's schema does not lie beside this repository")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for document in (read(), config):
        jsonschema.Draft7Validator(schema).validate(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({**config, "deply": {}})


def test_every_artifact_can_be_built(config: dict[str, Any]) -> None:
    """Folder, Dockerfile, target and arguments exist."""
    for name, artifact in artifacts(config).items():
        docker = artifact["docker"]
        dockerfile = ROOT / artifact["context"] / docker["dockerfile"]
        assert dockerfile.is_file(), name
        found = stages(dockerfile)
        target = docker.get("target")
        assert target is None or target in {stage.name for stage in found}, name
        taken = {argument.partition("=")[0] for argument in found[-1].all("ARG")}
        assert set(docker.get("buildArgs", {})) <= taken, name


def test_every_file_of_the_release_exists(config: dict[str, Any]) -> None:
    """Chart, values files, and what the hook applies before it."""
    found = release(config)
    assert (ROOT / found["chartPath"] / "Chart.yaml").is_file()
    files = [file for file in found["valuesFiles"] if file != SITE_VALUES]
    assert files
    assert all((ROOT / file).is_file() for file in files)
    hook = config["deploy"]["helm"]["hooks"]["before"][0]["host"]["command"]
    applied = re.findall(r"--filename (\S+)", " ".join(hook))
    assert [read(ROOT / path)["metadata"]["name"] for path in applied] == [found["namespace"]]


def test_every_value_that_is_set_is_a_value_of_the_chart(config: dict[str, Any]) -> None:
    """A key that the chart does not have would be refused by its schema at the first deployment."""
    values = read(CHART / "values.yaml")
    found = release(config)
    for key in (*found["setValueTemplates"], *found.get("setValues", {})):
        place: Any = values
        for part in key.split("."):
            assert part in place, key
            place = place[part]


def test_every_image_that_is_built_is_used(config: dict[str, Any]) -> None:
    """Each artifact's repository and tag reach the chart, and no template names an image that is not built."""
    named = set()
    for template in release(config)["setValueTemplates"].values():
        named |= set(re.findall(r"\{\{\.(IMAGE_\w+?_kalshi_data\w*)\}\}", template))
    for name in artifacts(config):
        suffix = name.replace("-", "_")
        assert {f"IMAGE_REPO_{suffix}", f"IMAGE_TAG_{suffix}"} <= named, name
    built = {name.replace("-", "_") for name in artifacts(config)}
    assert {re.sub(r"^IMAGE_(REPO|TAG|DIGEST)_", "", name) for name in named} == built


def test_what_is_forwarded_is_a_port_of_the_release() -> None:
    """Every Service on kind has that port under that number; on EKS the pods of the Deployment listen on it."""
    forwarded = with_profiles("kind")["portForward"]
    services = render.scenario("kind").named("Service")
    for entry in forwarded:
        ports = services[entry["resourceName"]]["spec"]["ports"]
        assert entry["port"] in {port["port"] for port in ports}, entry
    assert len({entry["localPort"] for entry in forwarded}) == len(forwarded) > 1
    deployments = render.scenario("eks").named("Deployment")
    for entry in with_profiles("eks")["portForward"]:
        pod = deployments[entry["resourceName"]]["spec"]["template"]["spec"]
        ports = [port["containerPort"] for port in pod["containers"][0]["ports"]]
        assert entry["port"] in ports, entry


def test_kind_has_everything_in_one_cluster() -> None:
    """The simulator, production and the S3 server are on; three images are built and none is pushed."""
    config = with_profiles("kind")
    assert set(artifacts(config)) == {"kalshi-data", "kalshi-data-postgres", "kalshi-data-s3"}
    assert artifacts(config)["kalshi-data"]["docker"]["target"] == "runtime"
    assert config["build"]["local"]["push"] is False
    values = read(CHART / "ci" / "kind-values.yaml")
    assert all(values[part]["enabled"] for part in ("simulator", "production", "s3server"))


def test_the_cluster_of_kind_has_the_zones_of_its_values() -> None:
    """One node in each zone that the values pin anything to; the context's name is what activates the profile."""
    cluster = read(ROOT / "k8s" / "kind.yaml")
    workers = [node["labels"] for node in cluster["nodes"] if node["role"] == "worker"]
    zones = [labels["topology.kubernetes.io/zone"] for labels in workers]
    text = (CHART / "ci" / "kind-values.yaml").read_text(encoding="utf-8")
    values = read(CHART / "ci" / "kind-values.yaml")
    assert zones == [zone["topologyZone"] for zone in values["zones"]]
    assert len(set(zones)) == 3
    assert set(re.findall(r"topology\.kubernetes\.io/zone: ([\w-]+)", text)) <= set(zones)
    assert {labels["kalshi-data.io/role"] for labels in workers} == {"gatherer"}
    contexts = {
        profile["name"]: [said.get("kubeContext") for said in profile.get("activation", [])]
        for profile in read()["profiles"]
    }
    ours = [f"kind-{cluster['name']}"]
    assert contexts == {"kind": ours, "sync": ours, "eks": []}


def test_eks_builds_for_graviton_and_pushes() -> None:
    """One image, for arm64 only, to the registry that --default-repo names; no registry of the values in front of it."""
    config = with_profiles("eks")
    assert list(artifacts(config)) == ["kalshi-data"]
    assert config["build"]["platforms"] == ["linux/arm64"]
    assert config["build"]["local"]["push"] is True
    found = release(config)
    assert found["valuesFiles"] == ["charts/kalshi-data/ci/eks-values.yaml", SITE_VALUES]
    assert found["setValueTemplates"]["image.registry"] == ""
    assert "DIGEST" in found["setValueTemplates"]["image.digest"]


def test_code_is_written_where_the_image_has_it_and_the_process_hears_of_it() -> None:
    """`skaffold dev` synchronises into the working folder of a writable image, then tells its first process."""
    config = with_profiles("kind", "sync")
    image = artifacts(config)["kalshi-data"]
    recipe = lineage(DOCKERFILE, image["docker"]["target"])
    assert last(recipe, "WORKDIR").rest == "/app"
    assert last(recipe, "ENTRYPOINT").exec_form() == ["kalshi-data-reload"]
    assert any("chown -R 10001:10001 /app" in found.rest for found in recipe)
    copies = {found.rest for stage in stages(DOCKERFILE) for found in stage.instructions}
    for rule in image["sync"]["manual"]:
        room = rule["src"].removesuffix("/**/*")
        assert rule["dest"] == "."
        assert f"{room} /app/{room}" in copies
        assert list(ROOT.glob(rule["src"]))
    hooks = [hook["container"]["command"] for hook in image["sync"]["hooks"]["after"]]
    assert hooks == [["sh", "-c", "kill -HUP 1"]]
    assert release(config)["setValues"] == {"readOnlyRootFilesystem": False}


def test_a_database_does_not_restart_because_a_session_begins() -> None:
    """skaffold labels what it deploys with the number of its run; a StatefulSet itself, but not its pods or claims."""
    (said,) = read()["resourceSelector"]["allow"]
    assert said["groupKind"] == "StatefulSet.apps"
    assert said["labels"] == [".metadata.labels"]
    assert said["image"] == [".*"]
