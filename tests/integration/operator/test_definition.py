"""The definition of a Gatherer as a real API keeps it, and the command that brings it to a cluster."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from libs.kube.client import MERGE, Kube, open_kube
from libs.kube.errors import KubeInvalid
from libs.kube.objects import create_object
from services.operator import crds_command
from services.operator.crds_command import DIRECTORY, apply_all
from services.operator.resource import GATHERERS
from tests.integration.operator.world import VALUES, chart_objects, definitions, make
from tests.support.chart.render import Object, render
from tests.support.kube_api import ADMIN, KubeApi

NAME = "gatherers.kalshi-data.io"


@pytest.fixture
async def kube(kube_api: KubeApi) -> AsyncIterator[Kube]:
    """The administrator, in a namespace of the test's own, in a cluster that knows the definition."""
    name = f"test-{uuid4().hex[:10]}"
    async with open_kube(str(kube_api.kubeconfig(f"{name}-admin", ADMIN, name))) as made:
        await apply_all(made, definitions())
        await make(made, "/api/v1/namespaces", {"metadata": {"name": name}})
        yield made


def valid() -> Object:
    """A Gatherer as the chart makes it."""
    (found,) = [one for one in chart_objects("a") if one["kind"] == "Gatherer"]
    copied: Object = json.loads(json.dumps(found))
    return copied


async def test_what_a_gatherer_may_be_and_become(kube_api: KubeApi, kube: Kube) -> None:
    """Zone, slots and database are for ever; shards are 1 to 64, also by kubectl scale; faults are refused with a sentence."""
    space, here = kube.namespace, GATHERERS.path(kube.namespace, "a")
    for change, sentence in (
        ({"zone": "b"}, "a Gatherer bears the name of its zone"),
        ({"shards": 0}, "spec.shards in body should be greater than or equal to 1"),
        ({"shards": 65}, "spec.shards in body should be less than or equal to 64"),
        ({"connectionsMax": 12}, "connectionsMax must be above the sum of the slots"),
        ({"pins": {"orderbook/x": "pod"}}, "a pin's key is a slot"),
        ({"slots": {"orderbook": 1}}, "spec.slots.ticker: Required value"),
        ({"database": {"host": "x", "name": "y"}}, "spec.database.secretName: Required value"),
    ):
        one = valid()
        one["spec"] |= change
        with pytest.raises(KubeInvalid, match=re.escape(sentence)):
            await create_object(kube, GATHERERS, one)
    await create_object(kube, GATHERERS, valid())
    for change, sentence in (
        ({"zone": "b"}, "zone is immutable"),
        ({"slots": {"orderbook": 7}}, "slots are immutable"),
        ({"database": {"port": 5433}}, "database is immutable"),
    ):
        with pytest.raises(KubeInvalid, match=sentence):
            await kube.request("PATCH", here, body={"spec": change}, content=MERGE)  # fmt: skip
    with pytest.raises(subprocess.CalledProcessError) as refused:
        kube_api.kubectl("scale", "gatherer/a", "--replicas=0", namespace=space)
    assert "greater than or equal to 1" in refused.value.stderr
    kube_api.kubectl("scale", "gat/a", "--replicas=3", namespace=space)
    found = json.loads(kube_api.kubectl("get", "kalshi-data", "-o", "json", namespace=space))
    (one,) = found["items"]
    assert (one["spec"]["shards"], one["metadata"]["generation"]) == (3, 2)
    assert one["spec"]["connectionsMax"] == 16


async def test_the_command_brings_an_older_definition_to_this_version(
    kube_api: KubeApi, kube: Kube, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the upgrade hook's account, which may touch this definition alone; objects stay."""
    await create_object(kube, GATHERERS, valid())
    crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}"
    old = await kube.request("GET", crd)
    del old["spec"]["versions"][0]["additionalPrinterColumns"]
    await kube.request("PUT", crd, body=old)
    token = await _hook_token(kube)
    config = str(kube_api.kubeconfig(f"{kube.namespace}-hook", token, kube.namespace))
    assert await asyncio.to_thread(crds_command.main, ["apply", "--kubeconfig", config]) == 0
    assert capsys.readouterr().out == f"{NAME}: applied\n"
    written = yaml.safe_load((DIRECTORY / "gatherers.yaml").read_text(encoding="utf-8"))
    found = await kube.request("GET", crd)
    counts = [len(one["spec"]["versions"][0].get("additionalPrinterColumns", ())) for one in (found, written)]  # fmt: skip
    assert counts[0] == counts[1] > 8
    assert (await kube.request("GET", GATHERERS.path(kube.namespace, "a")))["spec"]["shards"] == 2

    other = {**written, "metadata": {"name": "others.kalshi-data.io"}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    arguments = ["apply", "--kubeconfig", config, "--from", str(tmp_path)]
    assert await asyncio.to_thread(crds_command.main, arguments) == 1
    assert 'cannot patch resource "customresourcedefinitions"' in capsys.readouterr().err


async def _hook_token(kube: Kube) -> str:
    """A token of the chart's hook, bound to the chart's ClusterRole."""
    rendered = render(VALUES, is_upgrade=True)
    role, binding = (
        json.loads(json.dumps(next(one for one in rendered.of(kind) if one["metadata"]["name"].endswith("-crds"))))
        for kind in ("ClusterRole", "ClusterRoleBinding")
    )  # fmt: skip
    account = binding["subjects"][0]["name"]
    binding["subjects"][0]["namespace"] = kube.namespace
    for one in (role, binding):
        one["metadata"]["name"] += f"-{kube.namespace}"
    binding["roleRef"]["name"] = role["metadata"]["name"]
    accounts = f"/api/v1/namespaces/{kube.namespace}/serviceaccounts"
    await make(kube, "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    await make(kube, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    await make(kube, accounts, {"metadata": {"name": account}})
    made = await make(kube, f"{accounts}/{account}/token", {"spec": {"expirationSeconds": 3600}})
    return str(made["status"]["token"])
