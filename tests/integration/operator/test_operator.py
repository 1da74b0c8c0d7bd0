"""The operator against a real API and real databases, as the account and with the Role that the chart gives it."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import pytest

from libs.flow.assignment import Pair, Plan
from libs.runtime.service import Runtime
from libs.store.planner import Planner
from libs.store.planning import Wishes, look
from libs.store.pool import Connection, connect
from services.operator.peering import PEERINGS
from tests.integration.operator.world import FULLNAME, TOTAL, Proxy, World, secret_name

pytestmark = pytest.mark.timeout(600)

SETTLED = {"Ready": "True EverySlotLive", "Balanced": "True NothingToMove"}


async def test_a_gatherer_from_its_creation_to_its_deletion(world: World) -> None:
    """Slots, replicas and status follow it, kubectl scale among them; deleting it ends planning and nothing else."""
    a = world.zones["a"]
    await a.join("pod-1", "pod-2")
    async with world.operator() as runtime:
        await world.until(lambda: a.is_spread(2))
        await world.until(lambda: world.says("a", **SETTLED, Frozen="False ShardsThere"))
        assert await world.replicas("a") == 2
        found = await world.gatherer("a")
        status, (holder, epoch) = found["status"], await a.planner()
        assert holder.startswith("operator/operator-1-test-")
        assert status["slots"] == {"total": TOTAL, "live": TOTAL, "moving": 0, "unassigned": 0}
        assert (status["epoch"], status["shards"], status["readyShards"]) == (epoch, 2, 0)
        assert status["observedGeneration"] == found["metadata"]["generation"]
        assert {c["observedGeneration"] for c in status["conditions"]} == {1}
        assert "finalizers" not in found["metadata"] and "annotations" not in found["metadata"]
        columns, *lines = (await world.kubectl("get", "gatherers")).splitlines()
        assert columns.split()[:4] == ["NAME", "SHARDS", "READY-SHARDS", "SLOTS"]
        assert next(line.split()[:5] for line in lines) == ["a", "2", "0", str(TOTAL), str(TOTAL)]

        await world.kubectl("scale", "gatherer/a", "--replicas=4")
        await world.until(lambda: _is(world.replicas("a"), 4))
        await a.join("pod-3", "pod-4")
        await world.until(lambda: a.is_spread(4))
        await world.kubectl("patch", "gatherer", "a", "--type=merge",
            "-p", '{"spec": {"pins": {"orderbook/0": "pod-3"}}}')  # fmt: skip
        await world.until(lambda: _owns(a.owners(), "orderbook/0", "pod-3"))

        await world.kubectl("scale", "gatherer/a", "--replicas=1")
        await world.until(lambda: _is(world.replicas("a"), 1))
        for name in ("pod-1", "pod-2", "pod-3"):
            a.shards[name].draining = True
        await world.until(lambda: a.is_spread(1))
        await world.until(lambda: world.says("a", **SETTLED))
        assert (await world.gatherer("a"))["status"]["shards"] == 1
        assert (a.unheard, a.most_rows <= 16) == ([], True)

        await world.kubectl("delete", "gatherer", "a", "--timeout=60s")
        zones = runtime.health.document
        await world.until(lambda: "a" not in zones()["gatherers"])
        assert len(await a.owners()) == TOTAL
        await world.until(lambda: _is(a.conn.fetchval("select expires_at < clock_timestamp() from planner"), True))  # fmt: skip
        assert zones()["gatherers"]["b"]["plans"]
        await world.until(lambda: _shown(runtime) == ["b"])


async def test_slots_of_a_lost_pod_move_and_when_most_are_lost_they_wait(world: World) -> None:
    """One of three: its slots go to the others when its lease is over. Two of three: frozen, until one of them is back."""
    a = world.zones["a"]
    await world.kubectl("scale", "gatherer/a", "--replicas=3")
    await a.join("pod-1", "pod-2", "pod-3")
    async with world.operator():
        await world.until(lambda: a.is_spread(3))
        await a.die("pod-3")
        await world.until(lambda: a.is_spread(2))
        before = await a.owners()
        await a.die("pod-2")
        await world.until(lambda: world.says("a", Frozen="True MostShardsVanished"))
        assert await world.says("a", Ready="False SlotsNotLive")
        assert {row["slot"]: row["shard"] for row in await a.rows()} == before
        await a.join("pod-2")
        await world.until(lambda: world.says("a", **SETTLED, Frozen="False ShardsThere"))
        assert await a.owners() == before


async def test_an_operator_that_restarts_in_the_middle_of_moves_goes_on_with_them(
    world: World,
) -> None:
    """While it is away a shard plans; the row is the operator's again at once, and the shard's plan comes to nothing."""
    a = world.zones["a"]
    await a.join("pod-1")
    async with world.operator():
        await world.until(lambda: a.is_spread(1))
        await a.join("pod-2", obeys=False)
        await world.until(lambda: _has(a.rows(), "assigned"))
    first = {row["slot"] for row in await a.rows() if row["state"] == "assigned"}
    async with connect(a.target) as conn:
        wishes = Wishes(await _slots(world), 16)
        stand_in = Planner("pod-1")
        await world.until(lambda: look(conn, stand_in, wishes, now_s=monotonic(), settle_s=0.0))
        epoch = stand_in.epoch
        assert epoch is not None
        async with world.operator():
            await world.until(lambda: _holds(a.planner(), "operator/operator-2-test-"))
            assert not await stand_in.write(conn, Plan(insert=[Pair("orderbook/0", "pod-2")]), 16)
            assert (await a.planner())[1] > epoch
            assert first <= {row["slot"] for row in await a.rows() if row["shard"] == "pod-2"}
            a.shards["pod-2"].obeys = True
            await world.until(lambda: a.is_spread(2))
            await world.until(lambda: world.says("a", **SETTLED))
    assert a.unheard == []


async def test_planning_goes_on_without_the_api_and_without_another_zones_database(
    world: World,
) -> None:
    """A pod drains, and the connection breaks, while the API is away: the login it knew is good. Then the status is right."""
    a, b = world.zones["a"], world.zones["b"]
    await a.join("pod-1", "pod-2")
    await b.join("pod-1")
    proxy = Proxy(world.api.port)
    await proxy.mend()
    async with world.operator(port=proxy.port) as runtime:
        await world.until(lambda: a.is_spread(2))
        await world.until(lambda: b.is_spread(1))
        await world.until(lambda: world.says("b", **SETTLED))
        await proxy.cut()
        await _cut_operator(a.conn)
        await a.conn.execute(f"alter database {b.target.database} with allow_connections false")
        await _cut_operator(b.conn)
        a.shards["pod-2"].draining = True
        await world.until(lambda: a.is_spread(1))
        await world.until(lambda: runtime.health.ready)
        await proxy.mend()
        await world.until(lambda: world.says("a", **SETTLED))
        await world.until(lambda: world.says("b", DatabaseReachable="False NoAnswer", Ready="Unknown DatabaseAway"))  # fmt: skip
        await a.conn.execute(f"alter database {b.target.database} with allow_connections true")
        await world.until(lambda: world.says("b", **SETTLED, DatabaseReachable="True Answers"))
    assert (a.unheard, b.unheard) == ([], [])


async def test_of_two_operators_the_database_lets_one_plan(world: World) -> None:
    """They see each other; the one that waits goes on in the middle of a move when the one that plans is killed."""
    a = world.zones["a"]
    await a.join("pod-1")
    async with AsyncExitStack() as stack:
        dying = await stack.enter_async_context(AsyncExitStack())
        first = (await dying.enter_async_context(world.operator(killed=True))).health.document
        await world.until(lambda: _plans(first, "a"))
        second = (await stack.enter_async_context(world.operator())).health.document
        await world.until(lambda: _peers(world, 2))
        await world.until(lambda: _seen(second, "a").get("other_operator") == first()["holder"])
        await world.until(lambda: a.is_spread(1))
        assert (_plans(first, "a"), _plans(second, "a")) == (True, False)
        await a.join("pod-2", obeys=False)
        await world.until(lambda: _has(a.rows(), "assigned"))
        holder, epoch = await a.planner()
        assert holder == first()["holder"]
        await dying.aclose()
        await world.until(lambda: _plans(second, "a"))
        holder, later = await a.planner()
        assert (holder, later > epoch) == (second()["holder"], True)
        a.shards["pod-2"].obeys = True
        await world.until(lambda: a.is_spread(2))
    assert a.unheard == []


async def test_the_planners_login_is_read_again_at_each_connection(world: World) -> None:
    """A Secret that is missing or changed concerns its zone only, and is followed without a restart."""
    a, b = world.zones["a"], world.zones["b"]
    await a.join("pod-1")
    await b.join("pod-1")
    await world.kubectl("delete", "secret", secret_name("a"))
    async with world.operator():
        await world.until(lambda: b.is_spread(1))
        await world.until(lambda: world.says("a", DatabaseReachable="False NoLogin"))
        await world.kubectl("create", "secret", "generic", secret_name("a"),
            "--from-literal=username=kd_planner", "--from-literal=password=wrong")  # fmt: skip
        await world.until(lambda: world.says("a", DatabaseReachable="False Refused"))
        await world.kubectl("patch", "secret", secret_name("a"), "--type=merge",
            "-p", f'{{"stringData": {{"password": "{a.target.password}"}}}}')  # fmt: skip
        await world.until(lambda: a.is_spread(1))


def _shown(runtime: Runtime) -> list[str]:
    """The zones that the metrics know."""
    text = runtime.metrics.exposition()[0].decode()
    return [zone for zone in "ab" if f'assignment_epoch{{gatherer="{zone}"}}' in text]


async def _is(found: Awaitable[Any], wanted: object) -> bool:
    return bool(await found == wanted)


async def _holds(planner: Awaitable[tuple[str, int]], operator: str) -> bool:
    return (await planner)[0].startswith(operator)


async def _owns(owners: Awaitable[dict[str, str]], slot: str, shard: str) -> bool:
    return (await owners).get(slot) == shard


async def _has(rows: Awaitable[list[Any]], state: str) -> bool:
    return any(row["state"] == state for row in await rows)


async def _slots(world: World) -> list[str]:
    counts = (await world.gatherer("a"))["spec"]["slots"]
    return [f"{kind}/{number}" for kind, count in counts.items() for number in range(count)]


async def _cut_operator(conn: Connection) -> None:
    await conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'kalshi-data-operator' and datname = current_database()"
    )


async def _peers(world: World, count: int) -> bool:
    path = PEERINGS.path(world.namespace, FULLNAME)
    return len((await world.admin.request("GET", path)).get("status", {})) == count


def _seen(document: Callable[[], dict[str, Any]], zone: str) -> dict[str, Any]:
    """What an operator says of a zone; nothing before it knows it."""
    found: dict[str, Any] = document()["gatherers"].get(zone, {})
    return found


def _plans(document: Callable[[], dict[str, Any]], zone: str) -> bool:
    """Whether an operator plans the zone."""
    return bool(_seen(document, zone).get("plans"))
