"""6: who reaches whom: every pair on the list can, nobody else can. Connections are tried out of real pods.

The list is design/kubernetes.md section 2, said here once more and independently of the chart. What stands in for others:
a stranger without labels, and pods that bear the labels of a migration, of the test pod and of a Prometheus.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tests.cluster.errors import NotInTime
from tests.cluster.figures import Figure, at_least
from tests.cluster.ground import Ground
from tests.cluster.kube import Object, is_ready, name_of
from tests.cluster.names import ZONAL, Names
from tests.cluster.scenario import Scenario
from tests.cluster.values import MONITORING, ZONES
from tests.cluster.waiting import until, until_true

POSTGRES, EXCHANGE, S3, HEALTH, METRICS, API = 5432, 8700, 7070, 8080, 9090, 443
CENTRAL = ("deduplicator", "archiver", "operator", "simulator")
READY_S_MAX = 60.0
TRY_S = 3.0
AGREE_S_MAX = 25.0
AT_ONCE = 4
OWN_MAX = 3
"""Doors of a component that has most: it may have no other pod to try them on."""
SCRIPT = """
import asyncio, json, sys

async def tried(host, port):
    try:
        async with asyncio.timeout(float(sys.argv[1])):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
    except (OSError, TimeoutError):
        return False

async def main():
    doors = json.loads(sys.argv[2])
    print(json.dumps(await asyncio.gather(*(tried(*door) for door in doors))))

asyncio.run(main())
"""


class Door(NamedTuple):
    """Somewhere to connect to: a component (`api`: Kubernetes), of a zone or of none, and its port."""

    component: str
    zone: str
    port: int


class Peer(NamedTuple):
    """Somebody who connects: a component, of a zone (for a migration: of a database) or of none."""

    component: str
    zone: str = ""


def doors() -> list[Door]:
    """Return everything there is to connect to."""
    found = [Door("database", zone, POSTGRES) for zone in ZONES]
    found += [Door("production", "", POSTGRES), Door("simulator", "", EXCHANGE), Door("s3", "", S3), Door("api", "", API)]  # fmt: skip
    for port in (HEALTH, METRICS):
        found += [Door(name, zone, port) for zone in ZONES for name in ZONAL]
        found += [Door(name, "", port) for name in CENTRAL]
    return found


def may(peer: Peer, door: Door) -> bool:
    """The table: whether somebody is to reach a door."""
    who, to, port = peer.component, door.component, door.port
    if port == HEALTH:
        return who == "test"
    if port == METRICS:
        return who == "monitoring"
    if to == "database":
        is_own = peer.zone == door.zone
        return who in ("deduplicator", "operator", "test") or (
            who in (*ZONAL, "migrate") and is_own
        )
    if to == "production":
        is_its_migration = who == "migrate" and peer.zone == "production"
        return who in ("deduplicator", "archiver", "test") or is_its_migration
    if to == "simulator":
        return who in ZONAL
    if to == "s3":
        return who == "archiver"
    # Kubernetes lets everybody in, and who is no pod of the release may go where it likes.
    return who in ("operator", "crds", *OUTSIDE)


OUTSIDE = ("stranger", "monitoring")
STRANGERS = (
    Peer("stranger"), Peer("monitoring"), Peer("test"), Peer("crds"), Peer("migrate", "a"), Peer("migrate", "production"),
)  # fmt: skip
SERVICES = (
    *(Peer(name, zone) for zone in ZONES for name in ZONAL),
    *(Peer(name) for name in CENTRAL),
)


class Reach(Scenario):
    """Policies are enforced here, and say what they are to say."""

    number: ClassVar[int] = 6
    title: ClassVar[str] = "who may reach whom: every pair of the list can, nobody else"
    timeout_s: ClassVar[float] = 300.0

    async def play(self, ground: Ground) -> list[Figure]:
        image = await _image(ground)
        await ground.kube.apply(*(probe(peer, ground.names, image) for peer in STRANGERS))
        try:
            await until_true(self._are_ready(ground), READY_S_MAX, "the probes are ready")
            turn = asyncio.Semaphore(AT_ONCE)
            answers = await asyncio.gather(
                *(self._wrong(ground, turn, peer) for peer in (*STRANGERS, *SERVICES))
            )
        finally:
            names = [probe_name(peer) for peer in STRANGERS]
            await ground.kube("delete", "pod", *names, "--ignore-not-found", "--wait=false")
        tried, wrong = (
            sum(count for count, _ in answers),
            [line for _, lines in answers for line in lines],
        )
        shut = [line for line in wrong if "cannot" in line]
        open_ = [line for line in wrong if "cannot" not in line]
        allowed = sum(may(peer, door) for peer in (*STRANGERS, *SERVICES) for door in doors())
        ground.say(f"{tried} pairs tried, {allowed} of them on the list")
        return [
            at_least("pairs tried", tried, (len(doors()) - OWN_MAX) * len(answers)),
            Figure("pairs of the list that cannot connect", "; ".join(shut) or "0", "0", not shut),
            Figure("pairs not on the list that can", "; ".join(open_) or "0", "0", not open_),
        ]

    def _are_ready(self, ground: Ground) -> Any:
        async def are_ready() -> bool:
            pods = [await ground.kube.get("pod", probe_name(peer)) for peer in STRANGERS]
            return all(map(is_ready, pods))

        return are_ready

    async def _wrong(
        self, ground: Ground, turn: asyncio.Semaphore, peer: Peer
    ) -> tuple[int, list[str]]:
        """Try every door until the list is right, or time is over; return how many were tried, and what is wrong.

        Policies follow a new pod with a delay.
        """
        pod, sibling = await _pods_of(ground, peer)
        places = addresses(peer, sibling, ground.names)
        words = ("python", "-c", SCRIPT, str(TRY_S), json.dumps(list(places.values())))

        async def look() -> list[str]:
            async with turn:
                answers = json.loads(await ground.kube.execute(pod, *words))
            return differing(peer, list(places), answers)

        what = f"{peer} as the list says"
        try:
            wrong = await until(look, lambda lines: not lines, AGREE_S_MAX, what)
        except NotInTime:
            wrong = await look()
        return len(places), wrong


def differing(peer: Peer, everywhere: Sequence[Door], answers: Sequence[bool]) -> list[str]:
    """Say where a peer reaches what it must not, or cannot reach what it must."""
    return [
        f"{' '.join(filter(None, peer))} {'reaches' if reached else 'cannot reach'} {door.component} {door.zone}:{door.port}"
        for door, reached in zip(everywhere, answers, strict=True)
        if reached != may(peer, door)
    ]


def addresses(peer: Peer, sibling: str, names: Names) -> dict[Door, tuple[str, int]]:
    """Return where a peer tries which door: host and port.

    Nobody can shut a pod out of itself, and through its Service it may come to itself: of its own component's doors it tries
    those of another pod (`sibling`, an address), where there is one.
    """
    found = {}
    for door in doors():
        host = names.object(door.component, door.zone)
        if door.component == "api":
            host = "kubernetes.default.svc"
        elif (door.component, door.zone) == (peer.component, peer.zone):
            host = sibling
        if host:
            found[door] = (host, door.port)
    return found


def labels_of(peer: Peer, names: Names) -> dict[str, str]:
    """Return the labels by which policies know somebody who is no service."""
    if peer.component == "stranger":
        return {"kalshi-data.io/probe": "stranger"}
    if peer.component == "monitoring":
        return dict(MONITORING)
    found = names.labels(peer.component)
    if peer.zone == "production":
        found["kalshi-data.io/database"] = peer.zone
    elif peer.zone:
        found["kalshi-data.io/zone"] = peer.zone
        found["kalshi-data.io/database"] = peer.zone
    return found


def probe_name(peer: Peer) -> str:
    """Return the name of the pod that stands in for somebody."""
    return "-".join(filter(None, ("probe", *peer)))


def probe(peer: Peer, names: Names, image: Mapping[str, Any]) -> Object:
    """Return a pod that does nothing, with somebody's labels."""
    container = {
        "name": "probe",
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **image,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": probe_name(peer), "labels": labels_of(peer, names)},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


async def _image(ground: Ground) -> dict[str, Any]:
    """Return what the release runs: reference and pull policy."""
    found = await ground.kube.get("deployment", ground.names.object("deduplicator"))
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return {key: container[key] for key in ("image", "imagePullPolicy")}


async def _pods_of(ground: Ground, peer: Peer) -> tuple[str, str]:
    """Return the name of a peer's pod, and the address of another of its component; empty when there is none."""
    if peer in STRANGERS:
        return probe_name(peer), ""
    pods = await ground.ready(peer.component, peer.zone)
    return name_of(pods[0]), next((str(pod["status"]["podIP"]) for pod in pods[1:]), "")
