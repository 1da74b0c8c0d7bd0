"""The planning loop of a zone: a connection to its database, and a look each second for as long as it answers.

The API is asked for one thing only, the planner's login, at each new connection; while it is away the login that was
read last is good. Whatever is wrong with a zone's database stays in this loop: other zones have their own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from libs.kube.client import Kube
from libs.kube.errors import KubeError
from libs.kube.objects import read_secret
from libs.runtime.service import Runtime
from libs.store.errors import SchemaMismatch, StoreError, StoreRefused, StoreUnavailable
from libs.store.planner import read_zone
from libs.store.planning import Look, look
from libs.store.pool import Connection, Target, connect
from libs.store.schema import check_level
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.operator.errors import LoginUnknown
from services.operator.report import report
from services.operator.settings import OperatorSettings
from services.operator.status import Fault
from services.operator.zone import Zone

log = get_logger(__name__)

LOGIN_S: Final = 5.0
"""Seconds the API has to give the login; a known one is then used without it."""
GIVE_UP_S: Final = 2.0
"""Seconds to let another plan at the end; who cannot be told waits for the end of the lease."""
REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (LoginUnknown, "NoLogin"),
    (StoreRefused, "Refused"),
    (SchemaMismatch, "NotMigrated"),
    (StoreUnavailable, "NoAnswer"),
    (TimeoutError, "NoAnswer"),
)


class Planning:
    """Plans one zone until it ends."""

    def __init__(self, zone: Zone, kube: Kube, runtime: Runtime, own: OperatorSettings) -> None:
        self._zone = zone
        self._kube = kube
        self._runtime = runtime
        self._own = own
        self._login: tuple[str, str] | None = None

    async def run(self) -> None:
        """Plan until the zone ends; then let another plan."""
        zone = self._zone
        while not zone.ended.is_set():
            try:
                async with self._connection() as conn:
                    await check_level(conn, "gatherer")
                    await self._plan_until_ended(conn)
            except (StoreError, LoginUnknown, TimeoutError) as error:
                self._away(error)
                # Each look takes the row; between two that fail for good a stand-in is to settle and plan.
                turns = 1 if getattr(error, "retryable", True) else 3
                await first_of(zone.ended, timeout_s=turns * self._own.retry_s)

    async def _plan_until_ended(self, conn: Connection) -> None:
        ended = self._zone.ended
        while not ended.is_set():
            async with asyncio.timeout(self._own.turn_s_max):
                await self.plan_once(conn)
            # A change of the Gatherer is seen by the next look; a second is soon enough, and a bound.
            await first_of(ended, timeout_s=self._own.plan_s)
        async with asyncio.timeout(GIVE_UP_S):
            await self._zone.planner.give_up(conn)

    async def plan_once(self, conn: Connection) -> None:
        """Look once, and note what was seen.

        Raises:
            StoreError: the zone's database does not do it.
        """
        zone, clock = self._zone, self._runtime.clock
        began = clock.monotonic()
        found = await look(
            conn, zone.planner, zone.wishes(), now_s=began, settle_s=self._own.settle_s
        )
        if found is None and not zone.is_anothers:
            found = Look(await read_zone(conn))  # its row ran out, and we may not judge that yet
        if zone.fault is not None:
            log.info("zone_back", gatherer=zone.gatherer.name)
        zone.fault, zone.look = None, found
        report(self._runtime.metrics, zone, clock.monotonic() - began)
        if found is not None and found.plan is not None and found.written and not found.is_settled:
            log.info("planned", gatherer=zone.gatherer.name, **found.plan.counts())

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Connect as the planner's Secret says now.

        Raises:
            LoginUnknown: it cannot be read, and never was.
            StoreError: the database does not let us in.
        """
        database, own = self._zone.gatherer.database, self._own
        user, password = await self._read_login()
        target = Target(
            host=database.host,
            port=database.port,
            database=database.name,
            user=user,
            password=password,
            connect_timeout_s=own.turn_s_max,
            statement_timeout_s=own.turn_s_max,
        )
        async with connect(target, application="kalshi-data-operator") as conn:
            yield conn

    async def _read_login(self) -> tuple[str, str]:
        secret = self._zone.gatherer.database.secret
        try:
            async with asyncio.timeout(LOGIN_S):
                found = await read_secret(self._kube, secret)
            self._login = (found["username"], found["password"])
        except (KubeError, KeyError, TimeoutError) as error:
            reason = f"no key {error}" if isinstance(error, KeyError) else str(error)
            if self._login is None:
                raise LoginUnknown(f"the Secret {secret}: {reason or 'no answer'}") from error
            log.warning("login_not_read", gatherer=self._zone.gatherer.name, reason=reason)
        return self._login

    def _away(self, error: Exception) -> None:
        """Note that the zone cannot be planned, and why; said once for each reason."""
        zone = self._zone
        zone.planner.unseen()
        reason = next((word for kind, word in REASONS if isinstance(error, kind)), "Broken")
        fault = Fault(reason, str(error) or f"no answer within {self._own.turn_s_max:g} s")
        self._runtime.metrics.task_faults_total.labels("plan").inc()
        if (zone.fault is None or zone.fault.reason != reason) and not zone.ended.is_set():
            name = zone.gatherer.name
            log.warning("zone_away", gatherer=name, reason=reason, error=fault.message)
        zone.fault = fault
        report(self._runtime.metrics, zone)
