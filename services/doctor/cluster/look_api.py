"""Asks the Kubernetes API for nodes and storage classes, where there is a way to it and a right to ask."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from libs.kube.client import open_kube
from libs.kube.cluster import Node, StorageClass, list_nodes, list_storage_classes
from libs.kube.errors import KubeError, KubeNotConfigured, KubeRefused
from services.doctor.cluster.evidence import Evidence
from services.doctor.cluster.judge_nodes import STORAGE, judge_nodes, judge_storage, nodes_check
from services.doctor.findings import Finding, fail, skipped

TIMEOUT_S: Final = 5.0
FROM_OUTSIDE: Final = "kalshi-data doctor --cluster from where kubectl works asks it"


class NotAsked(NamedTuple):
    """Why the API has no answer; is_fault: it should have had one."""

    why: str
    is_fault: bool


async def check_api(evidence: Evidence) -> Sequence[Finding]:
    """Every zone's nodes, and the storage class."""
    found = await _look(evidence)
    zones = evidence.settings.zones
    if isinstance(found, NotAsked):
        checks = [*(nodes_check(zone.zone) for zone in zones), STORAGE]
        if found.is_fault:
            advice = "look whether kubectl works here"
            return [fail(check, found.why, advice) for check in checks]
        return [skipped(check, found.why) for check in checks]
    nodes, classes = found
    return [
        *(judge_nodes(zone.zone, zone.topology_zone or zone.zone, nodes) for zone in zones),
        judge_storage(evidence.settings.storage_class, classes),
    ]


async def _look(evidence: Evidence) -> tuple[list[Node], list[StorageClass]] | NotAsked:
    namespace = evidence.settings.namespace
    try:
        async with open_kube(evidence.kubeconfig, namespace=namespace, timeout_s=TIMEOUT_S) as kube:
            return await list_nodes(kube), await list_storage_classes(kube)
    except KubeNotConfigured as error:
        if evidence.kubeconfig:
            return NotAsked(f"--kubeconfig {error}", is_fault=True)
        return NotAsked(
            f"no rights: no account of the Kubernetes API here; {FROM_OUTSIDE}", is_fault=False
        )
    except KubeRefused:
        why = f"no rights: this account may not list nodes and storage classes; {FROM_OUTSIDE}"
        return NotAsked(why, is_fault=False)
    except KubeError as error:
        if evidence.is_inside:
            return NotAsked(
                f"no way to the Kubernetes API from this pod; {FROM_OUTSIDE}", is_fault=False
            )
        return NotAsked(str(error), is_fault=True)
