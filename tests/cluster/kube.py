"""kubectl, in one namespace."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster.shell import TIMEOUT_S, run

Object = dict[str, Any]


class Kube:
    """The cluster that KUBECONFIG names, seen from one namespace."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    async def __call__(
        self, *words: str, stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> str:
        """Run kubectl. Raises CommandFailed."""
        return await run(
            "kubectl", "--namespace", self.namespace, *words, stdin=stdin, timeout_s=timeout_s
        )

    async def get(self, *words: str) -> Object:
        """Return an object, or a list of them, as `kubectl get` has it. Raises CommandFailed."""
        found = json.loads(await self("get", *words, "--output", "json"))
        assert isinstance(found, dict)
        return found

    async def items(self, kind: str, selector: Mapping[str, str] | None = None) -> list[Object]:
        """Return all objects of a kind with these labels. Raises CommandFailed."""
        labels = ",".join(f"{key}={value}" for key, value in (selector or {}).items())
        found = await self.get(kind, *(["--selector", labels] if labels else []))
        return list(found["items"])

    async def apply(self, *objects: Object) -> None:
        """Make these objects, or bring them to this form. Raises CommandFailed."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        await self("apply", "--filename", "-", stdin=json.dumps(listed))

    async def execute(
        self, target: str, *argv: str, stdin: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> str:
        """Run a program in a pod (`NAME`, `deployment/NAME`, `statefulset/NAME`). Raises CommandFailed."""
        words = ["exec", target, *(["--stdin"] if stdin is not None else []), "--", *argv]
        return await self(*words, stdin=stdin, timeout_s=timeout_s)

    async def delete_namespace(self, timeout_s: float) -> None:
        """Remove the namespace and everything in it. Raises CommandFailed."""
        words = ("delete", "namespace", self.namespace, "--ignore-not-found")
        await run("kubectl", *words, f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s + 10)


def is_ready(pod: Object) -> bool:
    """True for a pod that says Ready and is not being deleted."""
    return not is_going(pod) and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions", [])
    )


def is_going(pod: Object) -> bool:
    """True for a pod that is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def name_of(found: Object) -> str:
    """Return an object's name."""
    return str(found["metadata"]["name"])


def label_of(found: Object, key: str) -> str:
    """Return one label, empty when there is none."""
    return str(found["metadata"].get("labels", {}).get(key, ""))


def images_of(pods: Sequence[Object]) -> set[str]:
    """Return every image that these pods' containers run."""
    return {container["image"] for pod in pods for container in pod["spec"]["containers"]}
