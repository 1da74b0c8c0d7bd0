"""Whether the cluster can carry the release: nodes in every zone, and volumes that wait for their pod and can grow. Pure."""

from collections.abc import Sequence
from typing import Final

from libs.kube.cluster import Node, StorageClass
from services.doctor.findings import Finding, fail, ok, warn

STORAGE: Final = "storage class"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
ROLE_LABEL: Final = "kalshi-data.io/role"
ROLE: Final = "gatherer"


def nodes_check(zone: str) -> str:
    """What the check of a zone's nodes is called."""
    return f"nodes {zone}"


def judge_nodes(zone: str, node_zone: str, nodes: Sequence[Node]) -> Finding:
    """Whether the zone's pods, which may run nowhere else, have a node that takes them."""
    check = nodes_check(zone)
    there = [node for node in nodes if node.zone == node_zone]
    known = ", ".join(sorted({node.zone for node in nodes if node.zone})) or "none"
    if not there:
        advice = f"the zone's pods wait for a node with {ZONE_LABEL}={node_zone}: correct zones[].topologyZone or add nodes"
        return fail(check, f"no node in {node_zone}; zones with nodes: {known}", advice)
    able = [node for node in there if node.is_ready and node.is_schedulable]
    if not able:
        names = ", ".join(node.name for node in there)
        return fail(
            check, f"no node in {node_zone} takes pods: {names}", "kubectl describe node says why"
        )
    roles = {node.labels.get(ROLE_LABEL, "") for node in able}
    said = f"{len(able)} of {len(there)} in {node_zone} take pods ({', '.join(sorted({n.architecture for n in able}))})"
    labelled = any(ROLE_LABEL in node.labels for node in nodes)
    if labelled and ROLE not in roles:
        advice = f"label one of them {ROLE_LABEL}={ROLE}, or set zones' nodeRole to what they have"
        return warn(check, f"{said}, none of them has the role {ROLE}", advice)
    return ok(check, said)


def judge_storage(wanted: str, classes: Sequence[StorageClass]) -> Finding:
    """Whether the databases' volumes come to be in their pod's zone, and can grow."""
    found = next(
        (one for one in classes if one.name == wanted or (not wanted and one.is_default)), None
    )
    if found is None:
        names = ", ".join(sorted(one.name for one in classes)) or "none"
        missing = f"no storage class {wanted}" if wanted else "no default storage class"
        advice = "make it (storageClass.create) or name another one (database.storage.className)"
        return fail(STORAGE, f"{missing}; there are: {names}", advice)
    said = f"{found.name} ({found.provisioner})"
    if found.binding_mode != "WaitForFirstConsumer":
        advice = "a volume made before its pod may lie in another zone: use one with WaitForFirstConsumer"
        return fail(STORAGE, f"{said} binds {found.binding_mode}", advice)
    if not found.can_grow:
        advice = "set allowVolumeExpansion: true, or a full volume can only be replaced"
        return warn(STORAGE, f"{said} cannot grow", advice)
    return ok(STORAGE, f"{said} waits for its pod and can grow")
