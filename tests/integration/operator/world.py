"""A cluster for operators: a real API with the chart's own objects, a real database for each zone, and shards that obey.

There are no nodes and no controllers, so that a zone's pods are played: a shard registers in its zone's database, sets
live what it is assigned and leaves what it is to release, as a connector does.
"""

import asyncio
import base64
import contextlib
import functools
import gc
import inspect
import json
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import yaml

from libs.flow.assignment import State
from libs.kube.client import Kube, open_kube
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime
from libs.store import control
from libs.store.pool import Connection, Target, connect
from libs.telemetry.metrics import Metrics
from services.operator.crds_command import apply_all
from services.operator.resource import GATHERERS
from services.operator.service import run
from services.operator.settings import OperatorSettings, Settings
from tests.support.chart.render import CHART, Object, render
from tests.support.kube_api import ADMIN, KubeApi

ACCOUNT = "kalshi-data-operator"
FULLNAME = "kalshi-data"
SLOTS = {"orderbook": 6, "ticker": 2, "trade": 2, "lifecycle": 2}
TOTAL = sum(SLOTS.values())
QUICK = OperatorSettings(
    peering=FULLNAME,
    owner=f"{FULLNAME}-operator",
    plan_s=0.2,
    settle_s=0.2,
    resync_s=300.0,  # whatever changes has to be seen by the watch
    retry_s=0.3,
)
HOLDS_S_MAX = 240.0
"""What a busy machine may take until something holds; who waits for what never holds learns it then."""
LOOK_S = 0.1
"""Between two turns of the shards."""


VALUES: dict[str, Any] = {
    "zones": [{"name": "a", "topologyZone": "us-east-1a"}],
    "zoneDefaults": {"slots": {**SLOTS, "connections_max": 16}},
    "production": {"host": "production.example", "existingSecrets": {"superuser": "rds"}},
    "archive": {"root": "s3://bucket/v1"},
}
"""Of the chart; all else is its own."""


@functools.cache
def chart_objects(*zones: str) -> tuple[Object, ...]:
    """The objects of the release that concern the operator, as the chart makes them."""
    values = {**VALUES, "zones": [{"name": z, "topologyZone": f"us-east-1{z}"} for z in zones]}
    rendered = render(values)
    wanted = ("Role", "RoleBinding", "ServiceAccount", "Deployment", "Gatherer")
    return tuple(
        one
        for one in rendered.of(*wanted)
        if one["kind"] == "Gatherer"
        or one["metadata"]["name"].startswith((f"{FULLNAME}-operator", f"{FULLNAME}-connector"))
    )


@dataclass
class PlayedShard:
    """A connector as its zone's control tables see it. obeys: sets live what it is assigned."""

    name: str
    conn: Connection
    instance: UUID = field(default_factory=uuid4)
    template: str = "one"
    draining: bool = False
    obeys: bool = True

    async def begin(self) -> None:
        await control.register(
            self.conn, self.name, self.instance, template_hash=self.template, capacity=1
        )

    async def turn(self) -> None:
        """Heartbeat; take up what is assigned, leave what is to be released once another is live."""
        await control.heartbeat(
            self.conn, self.name, self.instance, load=0.0, draining=self.draining
        )
        for row in await control.owned(self.conn, self.name):
            if row.state is State.ASSIGNED and self.obeys:
                await control.set_live(self.conn, row.slot, self.name, 1)
            elif row.state is State.RELEASING and row.successor_from is not None:
                await control.released(self.conn, row.slot, self.name)


@dataclass
class PlayedZone:
    """One zone: its database, who lives in it, and whether any slot ever lost its last listener."""

    name: str
    target: Target
    conn: Connection
    shards: dict[str, PlayedShard] = field(default_factory=dict)
    unheard: list[str] = field(default_factory=list)
    most_rows: int = 0

    async def join(self, *names: str, **facts: Any) -> None:
        """Pods start."""
        for name in names:
            self.shards[name] = PlayedShard(name, self.conn, **facts)
            await self.shards[name].begin()
            await self._extend(name, "1 hour")

    async def die(self, *names: str) -> None:
        """Pods are gone without a word, for longer than a lease."""
        for name in names:
            del self.shards[name]
            await self._extend(name, "-1 second")

    async def _extend(self, shard: str, lease: str) -> None:
        await self.conn.execute(
            "update shards set expires_at = clock_timestamp() + $2::text::interval where shard = $1",
            shard,
            lease,
        )

    async def play(self) -> None:
        """One turn of every shard; then look whether a slot that was heard is not heard any more."""
        for shard in list(self.shards.values()):
            await shard.turn()
            # Who lives does so however seldom a busy machine lets it turn: leases end here by `die` alone.
            await self._extend(shard.name, "1 hour")
            if shard.draining and not await control.owned(self.conn, shard.name):
                await control.deregister(self.conn, shard.name, shard.instance)
                del self.shards[shard.name]

    async def rows(self) -> list[Any]:
        """Every row of slot_assignments."""
        return list(
            await self.conn.fetch(
                "select slot, shard, state, epoch from slot_assignments order by slot, shard"
            )
        )

    async def owners(self) -> dict[str, str]:
        """Slot -> shard of the settled zone: every slot once, live, on a living shard. Empty before that."""
        rows = await self.rows()
        settled = len(rows) == TOTAL and all(
            row["state"] == "live" and row["shard"] in self.shards for row in rows
        )
        return {row["slot"]: row["shard"] for row in rows} if settled else {}

    async def is_spread(self, count: int) -> bool:
        """Whether the zone is settled on so many shards."""
        return len(set((await self.owners()).values())) == count

    async def planner(self) -> tuple[str, int]:
        """Who has the planner's row, and the epoch."""
        row = await self.conn.fetchrow("select holder, epoch from planner")
        assert row is not None
        return row["holder"], row["epoch"]

    async def watch_heard(self, stop: asyncio.Event) -> None:
        """Note every slot that was heard once and has no living listener now, by a connection of its own."""
        async with connect(self.target) as conn:
            heard: set[str] = set()
            while not stop.is_set():
                rows = await conn.fetch(
                    "select slot from slot_assignments join shards using (shard)"
                    " where state <> 'assigned' and expires_at > clock_timestamp()"
                )
                now = Counter(row["slot"] for row in rows)
                self.unheard += sorted(heard - now.keys())
                self.most_rows = max(
                    self.most_rows, await conn.fetchval("select count(*) from slot_assignments")
                )
                heard |= now.keys()
                await asyncio.sleep(LOOK_S)


class Proxy:
    """A stretch of wire before the API that can be cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        """Let through, on the same port as ever."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse, and end what is open."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            self._open |= {writer, back}
            try:
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
            finally:
                self._open -= {writer, back}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one end was cut off, which is what the relay is for; the other end is told by the abort
    finally:
        writer.transport.abort()


@dataclass
class World:
    """What a test holds: the API, a namespace in it, the zones."""

    api: KubeApi
    admin: Kube
    namespace: str
    zones: dict[str, PlayedZone]
    token: str = ""
    operators: int = 0

    async def kubectl(self, *arguments: str) -> str:
        """As administrator, in the test's namespace; operators go on meanwhile."""
        return await asyncio.to_thread(self.api.kubectl, *arguments, namespace=self.namespace)

    async def gatherer(self, zone: str) -> Object:
        """A Gatherer as the API has it."""
        return await self.admin.request("GET", GATHERERS.path(self.namespace, zone))

    async def conditions(self, zone: str) -> dict[str, str]:
        """Type -> status of a Gatherer's conditions; a reason that says more than that is appended."""
        found = (await self.gatherer(zone)).get("status", {}).get("conditions", ())
        return {one["type"]: f"{one['status']} {one['reason']}" for one in found}

    async def replicas(self, zone: str) -> int:
        """What the zone's Deployment is to have."""
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{FULLNAME}-connector-{zone}"
        found = await self.admin.request("GET", path)
        return int(found["spec"]["replicas"])

    async def says(self, zone: str, **wanted: str) -> bool:
        """Whether the Gatherer's conditions are these: `Ready="True EverySlotLive"`."""
        found = await self.conditions(zone)
        return all(found.get(kind) == value for kind, value in wanted.items())

    @asynccontextmanager
    async def operator(
        self, *, port: int | None = None, killed: bool = False, **own: Any
    ) -> AsyncIterator[Runtime]:
        """Run an operator as the chart's account until the block ends. port: of a proxy before the API; killed: it says no goodbye."""
        self.operators += 1
        name = f"operator-{self.operators}-{self.namespace}"
        config = self.api.kubeconfig(name, self.token, self.namespace, port)
        clock, metrics = SystemClock(), Metrics()
        health = HealthState("operator", "", clock, metrics)
        runtime = Runtime(clock, asyncio.Event(), health, metrics)
        settings = Settings(
            operator=replace(QUICK, **{"kubeconfig": str(config), "name": name, **own})
        )
        task = asyncio.ensure_future(run(settings, runtime))
        try:
            yield runtime
            assert not task.done(), task.exception()
        finally:
            if killed:
                task.cancel()
            runtime.stop.set()
            async with asyncio.timeout(HOLDS_S_MAX):
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(_end_kopf, name)

    async def until(self, holds: Callable[[], Any], timeout_s: float = HOLDS_S_MAX) -> Any:
        """Play the shards until something holds, and return it; it may be a coroutine function."""
        async with asyncio.timeout(timeout_s):
            while True:
                for zone in self.zones.values():
                    await zone.play()
                found = holds()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(LOOK_S)


def _end_kopf(operator: str) -> None:
    """Wait for an operator's kopf, and collect the sessions that it leaves open: they are no fault of the test that comes next."""
    for thread in threading.enumerate():
        if thread.name == f"kopf-{operator}":
            thread.join(HOLDS_S_MAX)
            assert not thread.is_alive()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@asynccontextmanager
async def running_world(api: KubeApi, targets: dict[str, Target]) -> AsyncIterator[World]:
    """Install what concerns the operator in a namespace of its own: one zone for each database."""
    namespace = f"test-{uuid4().hex[:10]}"
    config = api.kubeconfig(f"{namespace}-admin", ADMIN, namespace)
    async with contextlib.AsyncExitStack() as stack:
        admin = await stack.enter_async_context(open_kube(str(config)))
        zones = {
            name: PlayedZone(name, target, await stack.enter_async_context(connect(target)))
            for name, target in targets.items()
        }
        await make(admin, "/api/v1/namespaces", {"metadata": {"name": namespace}})
        await apply_all(admin, definitions())
        for one in chart_objects(*targets):
            await make(admin, _path(one, namespace), _placed(one, namespace, targets))
        for name, target in targets.items():
            secret = _secret(name, target)
            await make(admin, _path(secret, namespace), secret)
        token = await make(
            admin,
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token",
            {"spec": {"expirationSeconds": 3600}},
        )
        world = World(api, admin, namespace, zones, token["status"]["token"])
        watching, stop = [], asyncio.Event()
        for zone in zones.values():
            watching.append(asyncio.ensure_future(zone.watch_heard(stop)))
        try:
            yield world
        finally:
            stop.set()
            await asyncio.gather(*watching)


async def make(admin: Kube, path: str, found: Object) -> Object:
    """Make an object, as administrator."""
    return await admin.request("POST", path, body=found)


def _path(found: Object, namespace: str) -> str:
    group = found["apiVersion"]
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    return f"{root}/namespaces/{namespace}/{found['kind'].lower()}s"


def definitions() -> list[Object]:
    """The CRDs, the chart's own and kopf's."""
    paths = [*sorted((CHART / "crds").glob("*.yaml")), CHART / "files/crds/kopfpeerings.yaml"]
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths]


def secret_name(zone: str) -> str:
    """Name of a zone's planner Secret, as the chart names it."""
    return f"{FULLNAME}-{zone}-planner"


def _secret(zone: str, target: Target) -> Object:
    texts = {"username": "kd_planner", "password": target.password}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    metadata = {"name": secret_name(zone)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def _placed(found: Object, namespace: str, targets: dict[str, Target]) -> Object:
    """An object of the chart where the test's databases are."""
    one: Object = json.loads(json.dumps(found))
    if one["kind"] == "RoleBinding":
        one["subjects"][0]["namespace"] = namespace
    if one["kind"] == "Gatherer":
        target = targets[one["metadata"]["name"]]
        one["spec"]["database"] |= {
            "host": target.host,
            "port": target.port,
            "name": target.database,
        }
    return one
