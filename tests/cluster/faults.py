"""What goes wrong with nodes and with the Kubernetes API, and how images get there: one adapter, three kinds of clusters.

A zone is one node here. `kill` is a power cut: every process gone at once, disks kept; `cut` a network partition.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.cluster.errors import Skipped
from tests.cluster.kube import Object, label_of, name_of
from tests.cluster.shell import run

ZONE_LABEL = "topology.kubernetes.io/zone"
NODES_NEEDED = 3
KIND_CONTEXT = "kind-"
NODE_S_MAX = 120.0


class Faults(Protocol):
    """Takes zones by their index, 0 to 2, in the order of the zones' names."""

    name: str

    async def kill(self, zone: int) -> None:
        """Cut the power of a zone."""

    async def start(self, zone: int) -> None:
        """Give it back."""

    async def cut(self, zone: int) -> None:
        """Take a zone off the network."""

    async def heal(self, zone: int) -> None:
        """Put it back."""

    async def stop_api(self) -> None:
        """Take the Kubernetes API away."""

    async def start_api(self) -> None:
        """Give it back."""

    async def kill_process(self, zone: int, container: str) -> None:
        """kill -9 of a container's main process on its node, past the Kubernetes API; the id without its scheme."""

    async def image(
        self, reference: str, context: Path, arguments: Sequence[str], timeout_s: float
    ) -> None:
        """Build an image and bring it to where the nodes find it."""


class Testbed:
    """The machine's own three-zone cluster; TESTBED names its script."""

    __test__ = False
    name = "testbed"

    def __init__(self, script: str) -> None:
        self._script = script

    async def kill(self, zone: int) -> None:
        await self._zone("kill", zone)

    async def start(self, zone: int) -> None:
        await self._zone("start", zone)

    async def cut(self, zone: int) -> None:
        await self._zone("cut", zone)

    async def heal(self, zone: int) -> None:
        await self._zone("heal", zone)

    async def stop_api(self) -> None:
        await run(self._script, "api", "stop", timeout_s=NODE_S_MAX)

    async def start_api(self) -> None:
        await run(self._script, "api", "start", timeout_s=NODE_S_MAX)

    async def kill_process(self, zone: int, container: str) -> None:
        socket = f"/run/kubernetes-testbed/{_letter(zone)}.sock"
        words = ("-n", "k8s.io", "task", "kill", "--signal", "SIGKILL", container)
        await run("ctr", "-a", socket, *words)

    async def image(
        self, reference: str, context: Path, arguments: Sequence[str], timeout_s: float
    ) -> None:
        # buildah before 1.33 does not see that a stage is used whose name has a build argument in it.
        words = ("--skip-unused-stages=false", *arguments)
        # A pod's image without a folder is looked for in `library`.
        full = reference if "/" in reference else f"library/{reference}"
        await run(self._script, "image", full, str(context), *words, timeout_s=timeout_s)

    async def _zone(self, verb: str, zone: int) -> None:
        await run(self._script, "zone", verb, _letter(zone), timeout_s=NODE_S_MAX)


def _letter(zone: int) -> str:
    return "abc"[zone]


class Kind:
    """A cluster of kind: nodes are Docker containers."""

    name = "kind"

    def __init__(self, cluster: str, nodes: Sequence[str]) -> None:
        self._cluster = cluster
        self._nodes = list(nodes)
        self._addresses: dict[int, str] = {}

    async def kill(self, zone: int) -> None:
        await self._docker("kill", self._nodes[zone])

    async def start(self, zone: int) -> None:
        await self._docker("start", self._nodes[zone])

    async def cut(self, zone: int) -> None:
        node = self._nodes[zone]
        said = await self._docker("inspect", node)
        self._addresses[zone] = address_in(json.loads(said)[0])
        await self._docker("network", "disconnect", "kind", node)

    async def heal(self, zone: int) -> None:
        # Under the same address: the node's certificate and its kubelet know no other.
        words = ("network", "connect", "--ip", self._addresses.pop(zone), "kind", self._nodes[zone])
        await self._docker(*words)

    async def stop_api(self) -> None:
        await self._docker("pause", f"{self._cluster}-control-plane")

    async def start_api(self) -> None:
        await self._docker("unpause", f"{self._cluster}-control-plane")

    async def kill_process(self, zone: int, container: str) -> None:
        words = ("ctr", "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", container)
        await self._docker("exec", self._nodes[zone], *words)

    async def image(
        self, reference: str, context: Path, arguments: Sequence[str], timeout_s: float
    ) -> None:
        build = ("docker", "build", "--quiet", *arguments, "--tag", reference, str(context))
        await run(*build, timeout_s=timeout_s)
        words = ("load", "docker-image", reference, "--name", self._cluster)
        await run("kind", *words, timeout_s=timeout_s)

    async def _docker(self, *words: str) -> str:
        return await run("docker", *words, timeout_s=NODE_S_MAX)


def address_in(inspected: Object) -> str:
    """Return a node's address on kind's network, as `docker inspect` has it."""
    return str(inspected["NetworkSettings"]["Networks"]["kind"]["IPAddress"])


class NoFaults:
    """A cluster whose nodes nobody here can break."""

    name = "none"

    async def kill(self, zone: int) -> None:
        raise _nobody()

    async def start(self, zone: int) -> None:
        raise _nobody()

    async def cut(self, zone: int) -> None:
        raise _nobody()

    async def heal(self, zone: int) -> None:
        raise _nobody()

    async def stop_api(self) -> None:
        raise _nobody()

    async def start_api(self) -> None:
        raise _nobody()

    async def kill_process(self, zone: int, container: str) -> None:
        raise _nobody()

    async def image(
        self, reference: str, context: Path, arguments: Sequence[str], timeout_s: float
    ) -> None:
        raise Skipped(f"{reference}: nobody here builds images; --registry names one that has them")


def _nobody() -> Skipped:
    return Skipped("no way to break nodes here: neither TESTBED nor a context of kind with docker")


def zones_of(nodes: Sequence[Object]) -> list[tuple[str, str]]:
    """Return (zone label, node) of the first three zones in the order of their names.

    Raises:
        Skipped: there are not three zones with a node that takes pods.
    """
    found: dict[str, str] = {}
    for node in nodes:
        zone = label_of(node, ZONE_LABEL)
        taints = {taint["effect"] for taint in node["spec"].get("taints", [])}
        if zone and "NoSchedule" not in taints:
            found.setdefault(zone, name_of(node))
    if len(found) < NODES_NEEDED:
        raise Skipped(
            f"three zones are needed (node label {ZONE_LABEL}); there are {sorted(found)}"
        )
    return sorted(found.items())[:NODES_NEEDED]


def choose(environment: Mapping[str, str], context: str, nodes: Sequence[str], has_docker: bool) -> Faults:  # fmt: skip
    """Return the adapter for this cluster: TESTBED's script, kind's nodes, or none."""
    script = environment.get("TESTBED")
    if script:
        return Testbed(script)
    if context.startswith(KIND_CONTEXT) and has_docker:
        return Kind(context.removeprefix(KIND_CONTEXT), nodes)
    return NoFaults()


async def find_faults(nodes: Sequence[str]) -> Faults:
    """Look at what there is, and choose."""
    context = (await run("kubectl", "config", "current-context")).strip()
    has_docker = await asyncio.to_thread(shutil.which, "docker") is not None
    return choose(os.environ, context, nodes, has_docker)
