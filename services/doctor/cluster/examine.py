"""The checks of a release, what each needs, and in which order they are reported."""

from collections.abc import Callable, Sequence
from functools import partial

from libs.runtime.sections import account_faults
from services.doctor.cluster.evidence import Evidence
from services.doctor.cluster.judge_clocks import CHECK as CLOCKS
from services.doctor.cluster.judge_clocks import judge_clocks
from services.doctor.cluster.judge_services import ARCHIVE, exchange_check
from services.doctor.cluster.look_api import check_api
from services.doctor.cluster.look_databases import (
    check_production,
    check_slots,
    check_zone_database,
    database_check,
    slots_check,
)
from services.doctor.cluster.look_policies import CHECK as POLICIES
from services.doctor.cluster.look_policies import check_policies
from services.doctor.cluster.look_services import check_archive, check_exchange, check_service
from services.doctor.findings import Finding, fail, ok
from services.doctor.runner import Check, run_checks

CONNECTIONS = "connections"
LONG_S = 45.0
"""Seconds of a check that tries again what a new pod cannot reach yet."""


async def examine_cluster(
    evidence: Evidence,
    timeout_s: float,
    running: Callable[[Sequence[str]], None] = lambda _names: None,
) -> list[Finding]:
    """Ask everything; bounded by timeout_s, seconds. Raises nothing: what goes wrong is a finding."""
    return await run_checks(cluster_checks(evidence), timeout_s, running)


def cluster_checks(evidence: Evidence) -> list[Check]:
    """List the checks; each runs as soon as what it needs is there."""
    settings = evidence.settings
    bases = [*(base for zone in settings.zones for base in zone.health), *settings.health]
    databases = {
        database_check(zone.zone): partial(check_zone_database, evidence, zone)
        for zone in settings.zones
    } | {database_check("production"): partial(check_production, evidence)}
    looked = [Check(name, run, timeout_s=LONG_S) for name, run in databases.items()]
    answered = [
        Check(base, partial(check_service, evidence, base), timeout_s=LONG_S) for base in bases
    ]
    services = tuple(bases)
    judged = [
        *_zone_checks(evidence, services),
        Check(
            ARCHIVE,
            partial(check_archive, evidence),
            after=(*services, database_check("production")),
            timeout_s=LONG_S,
        ),
        Check(CONNECTIONS, partial(_check_connections, evidence)),
        Check(CLOCKS, partial(_check_clocks, evidence), after=(*services, *databases)),
        Check("cluster", partial(check_api, evidence)),
        # Last: by then the policies have reached this pod, if anybody enforces them.
        Check(POLICIES, partial(check_policies, evidence), after=services, timeout_s=LONG_S),
    ]
    return [*looked, *answered, *judged]


def _zone_checks(evidence: Evidence, services: tuple[str, ...]) -> list[Check]:
    """What is judged of each zone: its slots, and whether the exchange lets it in."""
    zones = evidence.settings.zones
    slots = [
        Check(
            slots_check(zone.zone),
            partial(check_slots, evidence, zone),
            needs=(database_check(zone.zone),),
            timeout_s=LONG_S,
        )
        for zone in zones
    ]
    keys = [
        Check(
            exchange_check(zone.zone), partial(check_exchange, evidence, zone.zone), after=services
        )
        for zone in zones
    ]
    return [*slots, *keys]


async def _check_connections(evidence: Evidence) -> Sequence[Finding]:
    """The sum of every account, as the exchange counts it: only who knows all zones can ask."""
    zones = [(zone.zone, zone.account, zone.slots) for zone in evidence.settings.zones]
    faults = account_faults(zones)
    if faults:
        return [fail(CONNECTIONS, "; ".join(faults), "lower slots, or give zones an account each")]
    accounts = sorted({account for _, account, _ in zones})
    needed = sum(slots.total for _, _, slots in zones)
    said = f"{needed} of {len(zones)} zones fit into the limits of {len(accounts)} account"
    return [ok(CONNECTIONS, f"{said}{'s' if len(accounts) > 1 else ''}: {', '.join(accounts)}")]


async def _check_clocks(evidence: Evidence) -> Sequence[Finding]:
    return [judge_clocks(evidence.samples)]
