"""The object by which operators see each other. Made here: as part of a release it could not be installed beside its own CRD."""

from typing import Final

from libs.kube.client import Json, Kube
from libs.kube.errors import KubeConflict, KubeError, KubeNotFound
from libs.kube.objects import Kind, create_object, read_deployment
from libs.telemetry.logging import get_logger
from services.operator.settings import OperatorSettings

log = get_logger(__name__)

PEERINGS: Final = Kind("kopf.dev", "v1", "kopfpeerings")


async def ensure_peering(kube: Kube, own: OperatorSettings) -> bool:
    """Make the peering unless it is there; False when we go without one."""
    if not own.peering:
        return False
    try:
        await create_object(kube, PEERINGS, await _peering(kube, own))
    except KubeConflict:
        return True
    except KubeNotFound:
        log.info("no_peering", reason="the cluster does not know kopfpeerings.kopf.dev")
        return False
    except KubeError as error:
        # It may be there: kopf looks for itself, and does without where it finds none.
        log.warning("peering_not_made", error=str(error))
    return True


async def _peering(kube: Kube, own: OperatorSettings) -> Json:
    meta: Json = {"name": own.peering}
    if own.owner:
        # Whoever uninstalls the release deletes the Deployment, and with it what only its pods have made.
        owner = await read_deployment(kube, own.owner)
        meta["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner.name, "uid": owner.uid}
        ]
    return {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": meta}
