"""The telling loop of a zone: the Deployment's replicas follow spec.shards, and the status says what is seen.

It alone waits for the Kubernetes API, and does nothing that planning waits for.
"""

from dataclasses import replace
from typing import Final

from libs.kube.client import Json, Kube
from libs.kube.cluster import list_pods
from libs.kube.errors import KubeError, KubeNotFound
from libs.kube.objects import patch_status, read_deployment, scale_deployment
from libs.marketdata.units import SECOND, format_rfc3339
from libs.runtime.service import Runtime
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.operator.resource import GATHERERS
from services.operator.settings import OperatorSettings
from services.operator.status import status_of
from services.operator.zone import Zone

log = get_logger(__name__)

OBSERVE_S: Final = 5.0
"""Seconds between two looks at a zone's Deployment and pods; a change of its Gatherer is followed at once."""


class Telling:
    """Tells the API about one zone until it ends."""

    def __init__(self, zone: Zone, kube: Kube, runtime: Runtime, own: OperatorSettings) -> None:
        self._zone = zone
        self._kube = kube
        self._runtime = runtime
        self._own = own
        self._observed_at: float | None = None
        self._said = ""

    async def run(self) -> None:
        """Look and tell until the zone ends; a failure is said once and tried again."""
        zone = self._zone
        while not zone.ended.is_set():
            pause = self._own.plan_s
            try:
                await self.tell_once()
                self._say(zone.missing)
            except KubeError as error:
                self._runtime.metrics.task_faults_total.labels("tell").inc()
                self._say(str(error))
                zone.is_told, pause = False, self._own.retry_s
            await first_of(zone.ended, zone.changed, timeout_s=pause)

    async def tell_once(self) -> None:
        """Observe what is due, and write the status if it is another than the object has.

        Raises:
            KubeError: the API does not do it.
        """
        zone, now = self._zone, self._runtime.clock.monotonic()
        due = self._observed_at is None or now - self._observed_at >= OBSERVE_S
        if due or zone.changed.is_set():
            zone.changed.clear()
            await self._observe()
            self._observed_at = now
        if not zone.is_anothers:
            await self._write()

    async def _observe(self) -> None:
        """Scale the Deployment to spec.shards, and look at its pods."""
        zone, own = self._zone, self._zone.gatherer
        try:
            found = await read_deployment(self._kube, own.deployment)
        except KubeNotFound as error:
            # Planning needs none: a shard is whoever has a lease.
            zone.pods, zone.selector, zone.missing = None, "", str(error)
            return
        if found.replicas != own.shards:
            await scale_deployment(self._kube, own.deployment, own.shards)
            log.info("scaled", gatherer=own.name, replicas=own.shards, before=found.replicas)
        zone.selector, zone.missing = found.selector, ""
        zone.pods = await list_pods(self._kube, selector=found.selector)

    async def _write(self) -> None:
        zone, now = self._zone, self._runtime.clock.now()
        status = status_of(zone.gatherer, zone.seen(), format_rfc3339(now - now % SECOND))
        changes = _changes(zone.gatherer.status, status)
        if changes:
            after = await patch_status(self._kube, GATHERERS, zone.gatherer.name, changes)
            # The object may have become another one meanwhile: only its status is taken over.
            zone.gatherer = replace(zone.gatherer, status=after.get("status") or {})
        zone.is_told = True

    def _say(self, fault: str) -> None:
        if fault != self._said:
            name = self._zone.gatherer.name
            if fault:
                log.warning("not_told", gatherer=name, error=fault)
            else:
                log.info("told_again", gatherer=name)
        self._said = fault


def _changes(before: Json, after: Json) -> Json:
    """What of a status is another than before."""
    return {key: value for key, value in after.items() if before.get(key) != value}
