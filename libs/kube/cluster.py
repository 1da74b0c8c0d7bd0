"""Nodes, storage classes and pods of a cluster, as far as somebody here needs them."""

from typing import Final, NamedTuple

from libs.kube.client import Json, Kube

_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"


class Node(NamedTuple):
    """A node. taints: `key=value:effect` each. architecture: as the kubelet says it, `arm64`."""

    name: str
    labels: dict[str, str]
    is_ready: bool
    is_schedulable: bool
    architecture: str
    taints: tuple[str, ...]

    @property
    def zone(self) -> str:
        """The availability zone; empty where no label says it."""
        return self.labels.get("topology.kubernetes.io/zone", "")


class StorageClass(NamedTuple):
    """A storage class. binding_mode: `WaitForFirstConsumer` or `Immediate`."""

    name: str
    provisioner: str
    is_default: bool
    binding_mode: str
    reclaim_policy: str
    can_grow: bool
    parameters: dict[str, str]


class Pod(NamedTuple):
    """A pod. node, ip: empty before it is placed. is_leaving: its deletion has begun. restarts: of all its containers.

    created: RFC 3339 in whole seconds of UTC, so that texts compare as times do.
    """

    name: str
    labels: dict[str, str]
    node: str
    ip: str
    phase: str
    is_ready: bool
    is_leaving: bool
    restarts: int
    created: str = ""


async def list_nodes(kube: Kube) -> list[Node]:
    """Return every node.

    Raises:
        KubeError: as Kube.request.
    """
    return [_node(found) for found in await kube.list_all("/api/v1/nodes")]


async def list_storage_classes(kube: Kube) -> list[StorageClass]:
    """Return every storage class.

    Raises:
        KubeError: as Kube.request.
    """
    found = await kube.list_all("/apis/storage.k8s.io/v1/storageclasses")
    return [_storage_class(one) for one in found]


async def list_pods(kube: Kube, *, namespace: str = "", selector: str = "") -> list[Pod]:
    """Return the pods of a namespace.

    Args:
        namespace: empty: the client's own.
        selector: of labels, as kubectl's -l.

    Raises:
        KubeError: as Kube.request.
    """
    path = f"/api/v1/namespaces/{namespace or kube.namespace}/pods"
    return [_pod(found) for found in await kube.list_all(path, selector=selector)]


def _node(found: Json) -> Node:
    meta, spec, status = found["metadata"], found.get("spec", {}), found.get("status", {})
    taints = tuple(
        f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
        for taint in spec.get("taints") or ()
    )
    return Node(
        name=meta["name"],
        labels=meta.get("labels") or {},
        is_ready=_holds(status, "Ready"),
        is_schedulable=not spec.get("unschedulable", False),
        architecture=status.get("nodeInfo", {}).get("architecture", ""),
        taints=taints,
    )


def _storage_class(found: Json) -> StorageClass:
    meta = found["metadata"]
    return StorageClass(
        name=meta["name"],
        provisioner=found["provisioner"],
        is_default=(meta.get("annotations") or {}).get(_DEFAULT_CLASS) == "true",
        binding_mode=found.get("volumeBindingMode", "Immediate"),
        reclaim_policy=found.get("reclaimPolicy", "Delete"),
        can_grow=bool(found.get("allowVolumeExpansion", False)),
        parameters=found.get("parameters") or {},
    )


def _pod(found: Json) -> Pod:
    meta, status = found["metadata"], found.get("status", {})
    return Pod(
        name=meta["name"],
        labels=meta.get("labels") or {},
        node=found.get("spec", {}).get("nodeName", ""),
        ip=status.get("podIP", ""),
        phase=status.get("phase", ""),
        is_ready=_holds(status, "Ready"),
        is_leaving="deletionTimestamp" in meta,
        restarts=sum(one.get("restartCount", 0) for one in status.get("containerStatuses") or ()),
        created=meta.get("creationTimestamp", ""),
    )


def _holds(status: Json, kind: str) -> bool:
    """Whether a condition of this type is True."""
    return any(
        one["type"] == kind and one["status"] == "True" for one in status.get("conditions") or ()
    )
