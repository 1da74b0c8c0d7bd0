"""When the operator is ready: it knows its Gatherers, and plans or could plan at least one of them."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from libs.kube.client import Kube
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime
from libs.store.planner import Planner, ZoneState
from libs.store.planning import Look
from libs.telemetry.metrics import Metrics
from services.operator.settings import OperatorSettings
from services.operator.status import Fault
from services.operator.tasks import Gatherers, keep_readiness
from services.operator.zone import Zone
from tests.unit.operator.test_status import GATHERER, SPEC

LOOK = Look(ZoneState((), ()))
AWAY = Fault("NoAnswer", "no answer within 10 s")


class Api:
    """All that readiness asks of it is where it is."""

    server = "https://api.example"


def zone(name: str, other: str = "", **seen: Any) -> Zone:
    planner = Planner("operator/me")
    planner.other = other
    return Zone(replace(GATHERER, name=name), planner, **seen)


@pytest.mark.parametrize(
    ("zones", "reason"),
    [
        ((), ""),
        ((zone("a", look=LOOK),), ""),
        ((zone("a"),), "waiting for a zone's database"),
        ((zone("a", look=LOOK, fault=AWAY),), "waiting for a zone's database"),
        ((zone("a", look=LOOK, fault=AWAY), zone("b", look=LOOK)), ""),
        ((zone("a", other="operator/other"),), ""),
        ((zone("a", other="connector-a-1"),), "waiting for a zone's database"),
    ],
)
async def test_one_zone_that_can_be_planned_is_enough(zones: tuple[Zone, ...], reason: str) -> None:
    """Each zone is planned by itself: one whose database is away takes nothing from the others. Without Gatherers all is done."""
    clock, metrics = SystemClock(), Metrics()
    runtime = Runtime(clock, asyncio.Event(), HealthState("operator", "", clock, metrics), metrics)
    gatherers = Gatherers(cast(Kube, Api()), runtime, OperatorSettings())
    assert await _told(runtime, gatherers) == (
        False,
        "waiting for the Kubernetes API (https://api.example)",
    )
    gatherers.zones = {one.gatherer.name: one for one in zones}
    gatherers.is_known = True  # and stays so while the API is away
    assert await _told(runtime, gatherers) == (not reason, reason)
    runtime.stop.set()
    await keep_readiness(runtime, gatherers)
    assert runtime.health.document()["reason"] == "stopping"


async def _told(runtime: Runtime, gatherers: Gatherers) -> tuple[bool, str]:
    """What one look says."""
    keeping = asyncio.ensure_future(keep_readiness(runtime, gatherers))
    await asyncio.sleep(0)
    keeping.cancel()
    document = runtime.health.document()
    return document["ready"], document["reason"]


@pytest.mark.parametrize(("account_max", "overbooked"), [(18, 0), (17, 1)])
async def test_parts_of_an_account_are_measured_by_the_whole(
    account_max: int, overbooked: int
) -> None:
    """Three zones of five slots, each with its part: the sum is compared with all that the account may hold."""
    clock, metrics = SystemClock(), Metrics()
    runtime = Runtime(clock, asyncio.Event(), HealthState("operator", "", clock, metrics), metrics)
    gatherers = Gatherers(cast(Kube, Api()), runtime, OperatorSettings())
    for name in "abc":
        own = zone(name)
        slots = replace(own.gatherer.slots, connections_max=6)
        own.gatherer = replace(
            own.gatherer, account="one", slots=slots, account_connections_max=account_max
        )
        gatherers.zones[name] = own
    async with asyncio.TaskGroup() as group:
        gatherers.take_over([_listed(one) for one in gatherers.zones.values()], group)
    shown = metrics.exposition()[0].decode()
    (line,) = [one for one in shown.splitlines() if one.startswith("kalshi_data_accounts_overbooked")]  # fmt: skip
    assert float(line.split()[-1]) == overbooked
    assert [bool(one.warning) for one in gatherers.zones.values()] == [bool(overbooked)] * 3


def _listed(one: Zone) -> dict[str, Any]:
    """The zone's object as the API lists it."""
    own = one.gatherer
    meta = {"name": own.name, "uid": own.uid, "generation": own.generation}
    part = {
        "account": own.account,
        "connectionsMax": own.slots.connections_max,
        "accountConnectionsMax": own.account_connections_max,
    }
    return {"metadata": meta, "spec": {**SPEC, "zone": own.name, **part}}
