"""What an uninstall leaves: the volumes, the passwords that open them, and configurations that old pods may still have."""

from tests.cluster.errors import NotInTime
from tests.cluster.ground import Ground
from tests.cluster.kube import Object, name_of
from tests.cluster.waiting import until

KEPT_KINDS = ("Secret", "ConfigMap")
KEEP = ("helm.sh/resource-policy", "keep")
KINDS = "deployments,statefulsets,replicasets,controllerrevisions,jobs,pods,services,networkpolicies,gatherers.kalshi-data.io,kopfpeerings.kopf.dev,roles,rolebindings,serviceaccounts,poddisruptionbudgets,secrets,configmaps,persistentvolumeclaims"  # fmt: skip
OTHERS = ("ServiceAccount/default", "ConfigMap/kube-root-ca.crt")
"""What every namespace has."""
GONE_S_MAX = 30.0
"""Until what belonged to others is gone with them."""


async def volumes(ground: Ground) -> list[str]:
    """Return the names of the release's data volumes. Raises CommandFailed."""
    found = await ground.kube.items("persistentvolumeclaims", ground.names.labels())
    return sorted(map(name_of, found))


async def leftovers(ground: Ground) -> list[str]:
    """Return what is in the namespace that is not to be left, whatever its labels. Raises CommandFailed."""

    async def look() -> list[str]:
        return sorted(name for item in await ground.kube.items(KINDS) if (name := unexpected(item)))

    try:
        return await until(look, lambda left: not left, GONE_S_MAX, "nothing else is left")
    except NotInTime:
        return await look()


def unexpected(item: Object) -> str:
    """Return kind and name of something that an uninstall is not to leave, empty for what it may."""
    kind, (key, keep) = item["kind"], KEEP
    name = f"{kind}/{name_of(item)}"
    is_kept = item["metadata"].get("annotations", {}).get(key) == keep and kind in KEPT_KINDS
    return "" if is_kept or kind == "PersistentVolumeClaim" or name in OTHERS else name
