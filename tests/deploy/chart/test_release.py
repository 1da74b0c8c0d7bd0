"""Releases on a real Kubernetes API, by Helm 3 and 4: what was made once stays, and whose number of connectors it is."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.errors import CommandFailed
from tests.cluster.helm import Helm, find_helms
from tests.support.chart.render import CHART, NAMESPACE, scenario
from tests.support.kube_api import ADMIN, KubeApi

VALUES = (
    f"--values={CHART / 'ci' / 'one-zone-values.yaml'}",
    # Without a controller no hook ever ends; classes are the whole cluster's, and each major version has a release.
    "--set=crds.upgrade=false,priorityClasses.create=false,zoneDefaults.connectors.shards=null",
)
GATHERER, CONNECTORS = (
    "gatherers.kalshi-data.io/only",
    "deployments.apps/kd-kalshi-data-connector-only",
)

_numbers = itertools.count()


class Release:
    """The release `kd` in a namespace of its own."""

    def __init__(self, helm: Helm, api: KubeApi, namespace: str) -> None:
        self._helm, self._api, self.namespace = helm, api, namespace
        self._config = api.kubeconfig(namespace, ADMIN, namespace)

    @property
    def major(self) -> int:
        """Helm's."""
        return self._helm.major

    async def helm(self, verb: str, *words: str) -> None:
        """Run helm on the release. Raises CommandFailed."""
        where = (f"--kubeconfig={self._config}", f"--namespace={self.namespace}")
        await self._helm(verb, "kd", *words, *where, timeout_s=60)

    def kubectl(self, *words: str) -> str:
        """Run kubectl in the namespace."""
        return self._api.kubectl(*words, namespace=self.namespace)

    def secrets(self) -> dict[str, Any]:
        """Name -> what is in it, of the release's own."""
        own = ("secrets", "-l", "app.kubernetes.io/instance=kd", "-o", "json")
        return {one["metadata"]["name"]: one["data"] for one in json.loads(self.kubectl("get", *own))["items"]}  # fmt: skip

    def connectors(self) -> tuple[str, str]:
        """The number that is wanted, and the one that the operator has set."""
        wanted = self.kubectl("get", GATHERER, "-o", "jsonpath={.spec.shards}")
        return wanted, self.kubectl("get", CONNECTORS, "-o", "jsonpath={.spec.replicas}")

    def scale(self, number: int) -> None:
        """As somebody says, and the operator does."""
        for one in (GATHERER, CONNECTORS):
            self.kubectl("scale", one, f"--replicas={number}")


@pytest.fixture(params=[3, 4])
async def release(
    request: pytest.FixtureRequest, kube_api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Release:  # fmt: skip
    """Nothing yet, to be installed by this version of Helm."""
    monkeypatch.setenv("PATH", f"{kube_api.kubectl_program.parent}:{os.environ['PATH']}")
    try:
        (helm,) = [one for one in await find_helms() if one.major == request.param]
    except (CommandFailed, ValueError):
        pytest.skip(f"no Helm {request.param}: name one in HELM{request.param}")
    monkeypatch.setenv("HOME", str(tmp_path))
    namespace = f"release-{request.param}-{next(_numbers)}"
    kube_api.kubectl("create", "namespace", namespace)
    return Release(helm, kube_api, namespace)


@pytest.mark.slow
async def test_a_release_keeps_what_it_made(release: Release) -> None:
    """Passwords through upgrades, uninstall and another installation; the number of connectors through upgrades alone."""
    await release.helm("install", str(CHART), *VALUES)
    made = release.secrets()
    assert {"kd-kalshi-data-only-writer", "kd-kalshi-data-only-exchange", "kd-kalshi-data-s3"} < set(made)  # fmt: skip
    assert len({data["password"] for data in made.values() if "password" in data}) == 12
    assert release.connectors() == ("2", "1")  # nobody is there to set the Deployment's

    release.scale(4)
    await release.helm("upgrade", str(CHART), *VALUES, "--set=log.level=debug")
    assert release.secrets() == made
    assert release.connectors() == ("4", "4")

    # Back to the first revision's number: Helm 4 asks whether that is meant.
    if release.major == 4:
        with pytest.raises(CommandFailed, match="conflict"):
            await release.helm("rollback", "1")
    await release.helm("rollback", "1", *(("--force-conflicts",) if release.major == 4 else ()))
    assert release.secrets() == made
    assert release.connectors() == ("2", "4")

    await release.helm("uninstall")
    assert release.kubectl("get", "deployments,statefulsets,services,gatherers,networkpolicies", "-o", "name") == ""  # fmt: skip
    await release.helm("install", str(CHART), *VALUES)
    assert release.secrets() == made


@pytest.mark.slow
async def test_other_slots_are_another_gatherer_of_as_many_connectors(release: Release) -> None:
    """Refused in a sentence while the Gatherer is there, before anything is changed; deleted, it comes back as it was scaled."""
    await release.helm("install", str(CHART), *VALUES)
    release.scale(4)
    other = ("upgrade", str(CHART), *VALUES, "--set=zoneDefaults.slots.orderbook=5,zoneDefaults.slots.trade=2")  # fmt: skip
    maps = release.kubectl("get", "configmaps", "-o", "name")
    with pytest.raises(CommandFailed) as refused:
        await release.helm(*other)
    said = " ".join(str(refused.value).split())
    assert "zones: only: slots.orderbook is 4 in the cluster, not 5, slots.trade is 1 in the cluster, not 2;" in said  # fmt: skip
    assert f"kubectl delete gatherer/only -n {release.namespace}, then this upgrade again" in said
    assert release.kubectl("get", "configmaps", "-o", "name") == maps

    release.kubectl("delete", GATHERER)
    await release.helm(*other)
    assert release.connectors() == ("4", "4")
    assert release.kubectl("get", GATHERER, "-o", "jsonpath={.spec.slots.orderbook}") == "5"
    await release.helm(*other)


@pytest.mark.slow
async def test_another_database_is_another_gatherer_too(release: Release) -> None:
    """A name, or the planner's Secret: said before anything is changed, as the API would say it after everything else was."""
    await release.helm("install", str(CHART), *VALUES)
    maps = release.kubectl("get", "configmaps,deployments,statefulsets", "-o", "jsonpath={.items[*].metadata.resourceVersion}")  # fmt: skip
    other = (
        "upgrade", str(CHART), *VALUES,
        "--set=zoneDefaults.database.name=ticks,zoneDefaults.database.existingSecrets.planner=mine",
    )  # fmt: skip
    with pytest.raises(CommandFailed) as refused:
        await release.helm(*other)
    said = " ".join(str(refused.value).split())
    assert "zones: only: database.name is kalshi in the cluster, not ticks, database.secretName is kd-kalshi-data-only-planner in the cluster, not mine;" in said  # fmt: skip
    assert f"kubectl delete gatherer/only -n {release.namespace}, then this upgrade again" in said
    assert release.kubectl("get", "configmaps,deployments,statefulsets", "-o", "jsonpath={.items[*].metadata.resourceVersion}") == maps  # fmt: skip

    release.kubectl("delete", GATHERER)
    await release.helm(*other)
    assert release.kubectl("get", GATHERER, "-o", "jsonpath={.spec.database.secretName}") == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eks", "everything"])
def test_a_real_api_takes_every_object(name: str, kube_api: KubeApi) -> None:
    """Schemas know no rules: lengths of names, values of labels, what the definitions' own expressions say."""
    space = f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"
    kube_api.kubectl("apply", "--server-side", "--filename=-", stdin=space)
    kube_api.kubectl("apply", "--server-side", "--filename", str(CHART / "crds"))
    kube_api.kubectl("wait", "crd/gatherers.kalshi-data.io", "--for=condition=Established")
    objects = [one for one in scenario(name).objects if "monitoring.coreos.com" not in one["apiVersion"]]  # fmt: skip
    told = kube_api.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict",
        "--output=name", "--filename=-", namespace=NAMESPACE, stdin=yaml.safe_dump_all(objects),
    )  # fmt: skip
    assert len(told.splitlines()) == len(objects) > 50
