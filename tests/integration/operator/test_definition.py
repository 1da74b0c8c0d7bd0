"""The definition of a Gatherer as a real API keeps it, and the command that brings it to a cluster."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from libs.kube.client import MERGE, open_kube
from libs.kube.errors import KubeInvalid
from libs.kube.objects import create_object
from services.operator import crds_command
from services.operator.crds_command import DIRECTORY
from services.operator.resource import GATHERERS
from tests.integration.operator.world import chart_objects
from tests.support.chart.render import CHART, Object, render
from tests.support.kube_api import ADMIN, KubeApi

NAME = "gatherers.kalshi-data.io"


@pytest.fixture
def space(kube_api: KubeApi) -> Iterator[str]:
    """A namespace in a cluster that knows the definition."""
    name = f"test-{uuid4().hex[:10]}"
    kube_api.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
    kube_api.kubectl("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=20s")
    kube_api.kubectl("create", "namespace", name)
    yield name
    kube_api.kubectl("delete", "namespace", name, "--wait=false")


def valid() -> Object:
    """A Gatherer as the chart makes it."""
    (found,) = [one for one in chart_objects("a") if one["kind"] == "Gatherer"]
    copied: Object = json.loads(json.dumps(found))
    return copied


async def test_what_a_gatherer_may_be_and_become(kube_api: KubeApi, space: str) -> None:
    """Zone, slots and database are for ever; shards are 1 to 64, also by kubectl scale; faults are refused with a sentence."""
    config = kube_api.kubeconfig(f"{space}-admin", ADMIN, space)
    async with open_kube(str(config)) as kube:
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
                await kube.request("PATCH", GATHERERS.path(space, "a"), body={"spec": change}, content=MERGE)  # fmt: skip
    with pytest.raises(subprocess.CalledProcessError) as refused:
        kube_api.kubectl("scale", "gatherer/a", "--replicas=0", namespace=space)
    assert "greater than or equal to 1" in refused.value.stderr
    kube_api.kubectl("scale", "gat/a", "--replicas=3", namespace=space)
    found = json.loads(kube_api.kubectl("get", "kalshi-data", "-o", "json", namespace=space))
    (one,) = found["items"]
    assert (one["spec"]["shards"], one["metadata"]["generation"]) == (3, 2)
    assert one["spec"]["connectionsMax"] == 16


def test_the_command_brings_an_older_definition_to_this_version(
    kube_api: KubeApi, space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the upgrade hook's account, which may touch this definition alone; objects stay."""
    kube_api.kubectl("apply", "-f", "-", namespace=space, stdin=json.dumps(valid()))
    old = '[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]'
    kube_api.kubectl("patch", "crd", NAME, "--type=json", "-p", old)
    config = str(kube_api.kubeconfig(f"{space}-hook", _hook_token(kube_api, space), space))
    assert crds_command.main(["apply", "--kubeconfig", config]) == 0
    assert capsys.readouterr().out == f"{NAME}: applied\n"
    found = json.loads(kube_api.kubectl("get", "crd", NAME, "-o", "json"))
    written = yaml.safe_load((DIRECTORY / "gatherers.yaml").read_text(encoding="utf-8"))
    columns = [len(one["spec"]["versions"][0]["additionalPrinterColumns"]) for one in (found, written)]  # fmt: skip
    assert columns[0] == columns[1] > 8
    assert "a " in kube_api.kubectl("get", "gatherers", namespace=space)

    other = {**written, "metadata": {"name": "others.kalshi-data.io"}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other), encoding="utf-8")
    assert crds_command.main(["apply", "--kubeconfig", config, "--from", str(tmp_path)]) == 1
    assert 'cannot patch resource "customresourcedefinitions"' in capsys.readouterr().err


def _hook_token(api: KubeApi, space: str) -> str:
    """A token of the chart's hook, bound to the chart's ClusterRole."""
    rendered = render(
        {"zones": [{"name": "a", "topologyZone": "z"}], "production": {"host": "p", "existingSecrets": {"superuser": "s"}},
         "archive": {"root": "s3://b/v"}},
        is_upgrade=True,
    )  # fmt: skip
    role, binding = (
        json.loads(json.dumps(next(one for one in rendered.of(kind) if one["metadata"]["name"].endswith("-crds"))))
        for kind in ("ClusterRole", "ClusterRoleBinding")
    )  # fmt: skip
    account = binding["subjects"][0]
    binding["subjects"][0]["namespace"] = space
    for one in (role, binding):
        one["metadata"]["name"] += f"-{space}"
    binding["roleRef"]["name"] = role["metadata"]["name"]
    items = json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]})
    api.kubectl("apply", "-f", "-", stdin=items)
    api.kubectl("create", "serviceaccount", account["name"], namespace=space)
    return api.kubectl("create", "token", account["name"], namespace=space).strip()
