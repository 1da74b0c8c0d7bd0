"""Which Gatherers there are: listed when the watch says so and every half minute, each with its two loops while it is there."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from libs.kube.client import Json, Kube
from libs.kube.errors import KubeError
from libs.kube.objects import list_objects
from libs.runtime.sections import account_faults
from libs.runtime.service import Runtime
from libs.store.planner import OPERATOR, Planner
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.operator.errors import GathererInvalid
from services.operator.planning import Planning
from services.operator.report import forget
from services.operator.resource import GATHERERS, Gatherer, parse_gatherer
from services.operator.settings import OperatorSettings
from services.operator.telling import Telling
from services.operator.zone import Zone

log = get_logger(__name__)


@dataclass(slots=True)
class Gatherers:
    """The zones that are reconciled.

    Attributes:
        wake: set when the watch has seen a change.
        zones: by name. is_known: the API has listed them at least once; what it said stays good while it is away.
    """

    kube: Kube
    runtime: Runtime
    own: OperatorSettings
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    zones: dict[str, Zone] = field(default_factory=dict)
    is_known: bool = False
    holder: str = ""
    _said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A restarted container bears its pod's name again; its row in a database must not pass for the dead one's.
        self.holder = f"{OPERATOR}{self.own.name}/{uuid4().hex[:8]}"

    async def keep(self, begun: asyncio.Event) -> None:
        """Follow the Gatherers from `begun` until stop, then let every zone end."""
        stop = self.runtime.stop
        await first_of(begun, stop)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._end_all(), name="end-zones")
            while not stop.is_set():
                self.wake.clear()
                pause = self.own.resync_s
                try:
                    found = await list_objects(self.kube, GATHERERS)
                    if not stop.is_set():
                        self.take_over(found, group)
                except KubeError as error:
                    pause = self.own.retry_s
                    self._lost(error)
                await first_of(stop, self.wake, timeout_s=pause)

    def take_over(self, found: Sequence[Json], group: asyncio.TaskGroup) -> None:
        """Make the zones those of this list: begin new ones, end those that are gone, show the others what has changed."""
        self.runtime.metrics.kube_reachable.set(1)
        self._say("api", "")
        self.is_known = True
        names = {one["metadata"]["name"] for one in found}
        for name in set(self.zones) - names:
            log.info("gatherer_gone", gatherer=name)
            self._end(name)
        for one in found:
            name = one["metadata"]["name"]
            try:
                self._take(parse_gatherer(one), group)
            except GathererInvalid as error:
                self._say(f"gatherer {name}", str(error))
        self._check_accounts()

    def _take(self, gatherer: Gatherer, group: asyncio.TaskGroup) -> None:
        name = gatherer.name
        self._say(f"gatherer {name}", "")
        known = self.zones.get(name)
        if known is not None and known.gatherer.uid != gatherer.uid:
            self._end(name)
            known = None
        if known is None:
            zone = Zone(gatherer, Planner(self.holder))
            self.zones[name] = zone
            log.info("gatherer_found", gatherer=name, shards=gatherer.shards)
            group.create_task(self._live(zone), name=f"zone-{name}")
            return
        before, known.gatherer = known.gatherer, gatherer
        if before.generation != gatherer.generation:
            known.changed.set()

    async def _live(self, zone: Zone) -> None:
        """One zone's life; its figures go with it, unless another Gatherer of the name has come."""
        parts = (zone, self.kube, self.runtime, self.own)
        async with asyncio.TaskGroup() as loops:
            loops.create_task(Planning(*parts).run(), name=f"plan-{zone.gatherer.name}")
            loops.create_task(Telling(*parts).run(), name=f"tell-{zone.gatherer.name}")
        if zone.gatherer.name not in self.zones:
            forget(self.runtime.metrics, zone.gatherer.name)

    async def _end_all(self) -> None:
        """At stop, end every zone, whatever an API that does not answer is waited for."""
        await self.runtime.stop.wait()
        for name in list(self.zones):
            self._end(name)

    def _end(self, name: str) -> None:
        self.zones.pop(name).ended.set()

    def _check_accounts(self) -> None:
        """Say which accounts are asked for more connections than they have: only who sees all zones can."""
        known = [(zone.gatherer, zone) for zone in self.zones.values()]
        faults = account_faults(
            [
                (
                    own.name,
                    own.account,
                    replace(own.slots, connections_max=own.account_connections_max),
                )
                for own, _ in known
            ]
        )
        self.runtime.metrics.accounts_overbooked.set(len(faults))
        for own, zone in known:
            mine = [fault for fault in faults if fault.startswith(f"account {own.account}:")]
            zone.warning = mine[0] if mine else ""
        self._say("accounts", "; ".join(faults))

    def _lost(self, error: KubeError) -> None:
        self.runtime.metrics.kube_reachable.set(0)
        self.runtime.metrics.task_faults_total.labels("gatherers").inc()
        self._say("api", str(error))

    def _say(self, what: str, fault: str) -> None:
        """Log a fault when it is another than before, and its end."""
        if fault != self._said.get(what, ""):
            if fault:
                log.warning("gatherers_fault", what=what, error=fault)
            else:
                log.info("gatherers_fault_over", what=what)
        self._said[what] = fault


async def keep_readiness(runtime: Runtime, gatherers: Gatherers) -> None:
    """Ready = the Gatherers are known, and where there are some, at least one zone's database answers."""
    while not runtime.stop.is_set():
        zones = gatherers.zones.values()
        reason = ""
        if not gatherers.is_known:
            reason = f"waiting for the Kubernetes API ({gatherers.kube.server})"
        elif zones and not any(zone.is_reachable for zone in zones):
            reason = "waiting for a zone's database"
        runtime.health.set_ready(not reason, reason)
        await runtime.sleep(1.0)
    runtime.health.set_ready(False, "stopping")
