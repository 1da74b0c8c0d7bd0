"""Objects by name: Deployments and their scale, Secrets, custom resources and their definitions."""

import base64
import binascii
from typing import Final, NamedTuple

from libs.kube.client import APPLY, MERGE, Json, Kube
from libs.kube.errors import KubeInvalid

_CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Kind(NamedTuple):
    """A kind of custom resource, namespaced: `Kind("kalshi-data.io", "v1alpha1", "gatherers")`."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, *names: str) -> str:
        """The path of the list, of an object, or of an object's subresource."""
        return "/".join(
            (f"/apis/{self.group}/{self.version}/namespaces/{namespace}/{self.plural}", *names)
        )


class Deployment(NamedTuple):
    """A Deployment. selector: of its pods, as kubectl's -l. replicas: those that are wanted."""

    name: str
    uid: str
    replicas: int
    selector: str


async def read_deployment(kube: Kube, name: str) -> Deployment:
    """Return a Deployment of the client's namespace.

    Raises:
        KubeNotFound: there is none of this name.
        KubeError: as Kube.request.
    """
    found = await kube.request("GET", _deployment(kube, name))
    return Deployment(
        name=name,
        uid=found["metadata"]["uid"],
        replicas=found["spec"].get("replicas", 1),
        selector=_selector(found["spec"]["selector"]),
    )


async def scale_deployment(kube: Kube, name: str, replicas: int) -> None:
    """Set the number of a Deployment's pods through its scale subresource.

    Raises:
        KubeNotFound: there is none of this name.
        KubeError: as Kube.request.
    """
    body = {"spec": {"replicas": replicas}}
    await kube.request("PATCH", f"{_deployment(kube, name)}/scale", body=body, content=MERGE)


async def read_secret(kube: Kube, name: str) -> dict[str, str]:
    """Return a Secret's texts by key; nothing of it is kept or logged here.

    Raises:
        KubeNotFound: there is none of this name.
        KubeInvalid: a value is no text.
        KubeError: as Kube.request.
    """
    found = await kube.request("GET", f"/api/v1/namespaces/{kube.namespace}/secrets/{name}")
    try:
        data = found.get("data") or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}
    except (binascii.Error, UnicodeDecodeError) as error:
        raise KubeInvalid(f"the Secret {name} holds what is no text") from error


async def list_objects(kube: Kube, kind: Kind) -> list[Json]:
    """Return every object of a kind in the client's namespace.

    Raises:
        KubeNotFound: the cluster does not know the kind.
        KubeError: as Kube.request.
    """
    return await kube.list_all(kind.path(kube.namespace))


async def create_object(kube: Kube, kind: Kind, body: Json) -> None:
    """Make an object.

    Raises:
        KubeConflict: it is there already.
        KubeNotFound: the cluster does not know the kind.
        KubeError: as Kube.request.
    """
    await kube.request("POST", kind.path(kube.namespace), body=body)


async def patch_status(kube: Kube, kind: Kind, name: str, status: Json) -> Json:
    """Merge into an object's status; return the object as it is then.

    Raises:
        KubeNotFound: there is none of this name.
        KubeError: as Kube.request.
    """
    path = kind.path(kube.namespace, name, "status")
    return await kube.request("PATCH", path, body={"status": status}, content=MERGE)


async def apply_definition(kube: Kube, definition: Json, *, manager: str) -> None:
    """Apply a CustomResourceDefinition on the server's side; what others set in the same fields gives way.

    Args:
        manager: who owns the fields from now on.

    Raises:
        KubeInvalid: the API does not accept it, or it is no CustomResourceDefinition.
        KubeError: as Kube.request.
    """
    name = definition.get("metadata", {}).get("name", "")
    if definition.get("kind") != "CustomResourceDefinition" or not name:
        raise KubeInvalid(f"{definition.get('kind')} {name}: no CustomResourceDefinition")
    query = {"fieldManager": manager, "force": "true"}
    await kube.request("PATCH", f"{_CRDS}/{name}", query=query, body=definition, content=APPLY)


async def is_established(kube: Kube, name: str) -> bool:
    """Whether the API serves the kind of a CustomResourceDefinition.

    Raises:
        KubeError: as Kube.request.
    """
    found = await kube.request("GET", f"{_CRDS}/{name}")
    conditions = found.get("status", {}).get("conditions") or ()  # null at the first moment
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _deployment(kube: Kube, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{kube.namespace}/deployments/{name}"


def _selector(found: Json) -> str:
    """Say a label selector as kubectl's -l does."""
    terms = [f"{key}={value}" for key, value in sorted((found.get("matchLabels") or {}).items())]
    for one in found.get("matchExpressions") or ():
        values = ",".join(one.get("values") or ())
        match one["operator"]:
            case "Exists":
                terms.append(one["key"])
            case "DoesNotExist":
                terms.append(f"!{one['key']}")
            case operator:
                terms.append(f"{one['key']} {operator.lower()} ({values})")
    return ",".join(terms)
