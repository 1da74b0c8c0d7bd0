"""The client of the Kubernetes API: errors by class, lists in pages, what objects say."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from libs.kube.client import Kube, open_kube, read_access
from libs.kube.cluster import list_nodes, list_pods, list_storage_classes
from libs.kube.errors import (
    KubeConflict,
    KubeError,
    KubeInvalid,
    KubeNotConfigured,
    KubeNotFound,
    KubeRefused,
    KubeUnavailable,
)
from libs.kube.objects import read_deployment, read_secret

Answer = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serving(answer: Answer, directory: Path) -> AsyncIterator[Kube]:
    """A client of a server that answers every request so."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with open_kube(str(kubeconfig(directory, port)), timeout_s=60.0) as kube:
            yield kube
    finally:
        await runner.cleanup()


def kubeconfig(directory: Path, port: int) -> Path:
    path = directory / "kubeconfig"
    cluster = {"server": f"http://127.0.0.1:{port}"}
    context = {"cluster": "c", "user": "u", "namespace": "mine"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "abc"}}],
        "contexts": [{"name": "x", "context": context}],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, KubeInvalid, False),
        (401, KubeRefused, False),
        (403, KubeRefused, False),
        (404, KubeNotFound, False),
        (409, KubeConflict, True),
        (422, KubeInvalid, False),
        (429, KubeUnavailable, True),
        (500, KubeUnavailable, True),
        (503, KubeUnavailable, True),
    ],
)
async def test_errors_say_what_to_do(
    status: int, kind: type[KubeError], retryable: bool, tmp_path: Path
) -> None:
    """By class, with the request and the API's own sentence."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"kind": "Status", "message": "no, because"}, status=status)

    async with serving(answer, tmp_path) as kube:
        with pytest.raises(kind, match="GET /api/v1/nodes: no, because") as found:
            await list_nodes(kube)
    assert type(found.value) is kind
    assert found.value.retryable is retryable


async def test_an_api_that_is_away_or_silent_is_to_be_asked_again(tmp_path: Path) -> None:
    """Refused, cut off in the middle, or no answer in time."""

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(cut, tmp_path) as kube:
        with pytest.raises(KubeUnavailable):
            await list_nodes(kube)
    with pytest.raises(KubeUnavailable):
        await list_nodes(kube)
    async with open_kube(str(kubeconfig(tmp_path, 1))) as kube:
        with pytest.raises(KubeUnavailable, match="GET /api/v1/nodes"):
            await list_nodes(kube)


async def test_lists_come_in_pages(tmp_path: Path) -> None:
    """Until no page says that there is more; the selector stands on every request."""
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        assert request.headers["Authorization"] == "Bearer abc"
        assert request.path == "/api/v1/namespaces/mine/pods"
        number = len(asked)
        item = {"metadata": {"name": f"pod-{number}", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"conditions": None}}  # fmt: skip
        more = {"continue": "next"} if number < 3 else {}
        return web.json_response({"items": [item], "metadata": more})

    async with serving(answer, tmp_path) as kube:
        pods = await list_pods(kube, selector="a=b")
    assert [(one.name, one.is_ready) for one in pods] == [(f"pod-{n}", False) for n in (1, 2, 3)]
    assert [one.get("continue") for one in asked] == [None, "next", "next"]
    assert {one["labelSelector"] for one in asked} == {"a=b"}


async def test_what_is_read_of_objects(tmp_path: Path) -> None:
    """Nodes with their zones and taints, storage classes, a Deployment's selector, a Secret's texts."""
    ready = {"type": "Ready", "status": "True"}
    answers: dict[str, Any] = {
        "/api/v1/nodes": {
            "items": [
                {
                    "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}},
                    "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
                    "status": {"conditions": [ready], "nodeInfo": {"architecture": "arm64"}},
                }
            ]
        },
        "/apis/storage.k8s.io/v1/storageclasses": {
            "items": [
                {
                    "metadata": {"name": "gp3", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
                    "provisioner": "ebs.csi.aws.com",
                    "volumeBindingMode": "WaitForFirstConsumer",
                    "allowVolumeExpansion": True,
                }
            ]
        },
        "/apis/apps/v1/namespaces/mine/deployments/d": {
            "metadata": {"uid": "u"},
            "spec": {
                "replicas": 3,
                "selector": {
                    "matchLabels": {"b": "2", "a": "1"},
                    "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "Exists"}],
                },
            },
        },
        "/api/v1/namespaces/mine/secrets/s": {"data": {"username": "a2Q="}},
        "/api/v1/namespaces/mine/secrets/bytes": {"data": {"username": "/w=="}},
    }  # fmt: skip

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(answers[request.path])

    async with serving(answer, tmp_path) as kube:
        (node,) = await list_nodes(kube)
        assert (node.zone, node.is_ready, node.architecture) == ("z", True, "arm64")
        assert node.taints == ("k=v:NoSchedule",)
        (kind,) = await list_storage_classes(kube)
        assert (kind.name, kind.is_default, kind.can_grow) == ("gp3", True, True)
        assert kind.binding_mode == "WaitForFirstConsumer"
        assert await read_deployment(kube, "d") == ("d", "u", 3, "a=1,b=2,c in (x,y),d")
        assert await read_secret(kube, "s") == {"username": "kd"}
        with pytest.raises(KubeInvalid, match="the Secret bytes holds what is no text"):
            await read_secret(kube, "bytes")


async def test_without_a_cluster_it_is_said_where_was_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not there, and one that names no cluster."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(KubeNotConfigured, match="nowhere"):
        async with open_kube(str(tmp_path / "nowhere")):
            pass
    (tmp_path / "empty").write_text("{}", encoding="utf-8")
    with pytest.raises(KubeNotConfigured, match="empty"):
        async with open_kube(str(tmp_path / "empty")):
            pass


async def test_access_is_read_for_another_client(tmp_path: Path) -> None:
    """Server, token and namespace as the file says them now."""
    path = kubeconfig(tmp_path, 4711)
    first = await read_access(str(path))
    assert (first.server, first.token, first.namespace) == ("http://127.0.0.1:4711", "abc", "mine")
    path.write_text(path.read_text().replace("abc", "rotated"), encoding="utf-8")
    assert (await read_access(str(path))).token == "rotated"
