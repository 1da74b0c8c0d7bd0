"""Asks each database of a release: is it there, does it let us in, which level has its schema, what does its clock show."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, LiteralString, TypeAlias

from libs.runtime.secret import Secret
from libs.store.errors import StoreError, StoreRefused, StoreUnavailable
from libs.store.partitions import DatabaseKind
from libs.store.pool import AnyConnection, Target, connect, map_store_errors
from libs.store.schema import LEVELS, level_fault, read_level
from services.doctor.cluster.evidence import Archived, Evidence
from services.doctor.cluster.judge_clocks import Sample
from services.doctor.cluster.settings import CheckedStore, CheckedZone
from services.doctor.findings import Finding, fail, ok, skipped, warn

More: TypeAlias = Callable[[AnyConnection], Awaitable[str]]
"""Asks what else is of interest in a database that fits, and says it in words."""

APPLICATION: Final = "kalshi-data doctor"
ATTEMPTS, PAUSE_S = 4, 1.5
"""A policy takes some seconds to follow a new pod; a database that is restarting is there soon, too."""
SLOTS_PAUSE_S = 5.0
"""Between two looks at a zone whose slots are not all live: together a third of a minute."""
_CLOCK: LiteralString = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_LIVE: LiteralString = """
SELECT count(DISTINCT slot) FROM slot_assignments JOIN shards USING (shard)
 WHERE state = 'live' AND expires_at > clock_timestamp()
"""
_ARCHIVED: LiteralString = """
SELECT count(*) AS objects, (extract(epoch FROM max(archived_at)) * 1000000)::bigint AS newest_at FROM archive_manifests
"""


def database_check(name: str) -> str:
    """What the check of a database is called."""
    return f"database {name}"


async def check_zone_database(evidence: Evidence, zone: CheckedZone) -> Sequence[Finding]:
    """A zone's; notes how many slots are live."""

    async def more(conn: AnyConnection) -> str:
        evidence.live[zone.zone] = live = await conn.fetchval(_LIVE)
        return f"{live} slots live"

    return [await _check(evidence, zone.zone, zone.store, "gatherer", more)]


async def check_slots(evidence: Evidence, zone: CheckedZone) -> Sequence[Finding]:
    """Whether every slot of a zone is live; right after an installation that takes some seconds more."""
    check, live, total = slots_check(zone.zone), evidence.live.get(zone.zone), zone.slots.total
    if live is None:
        return [skipped(check, f"needs: {database_check(zone.zone)}")]
    for _ in range(ATTEMPTS):
        if live >= total:
            return [ok(check, f"{live} of {total} live")]
        await asyncio.sleep(SLOTS_PAUSE_S)
        try:
            async with connect(target_of(zone.store), APPLICATION) as conn:
                with map_store_errors():
                    live = await conn.fetchval(_LIVE)
        except (StoreError, OSError) as error:
            return [fail(check, f"{live} of {total} live, then: {error}", "run it again")]
    if live >= total:
        return [ok(check, f"{live} of {total} live")]
    if not live:
        advice = "nothing is captured: kubectl logs of the zone's connectors"
        return [fail(check, f"none of {total} live", advice)]
    advice = "kubectl get gatherers shows what moves and what nobody has"
    return [warn(check, f"{live} of {total} live", advice)]


def slots_check(zone: str) -> str:
    """What the check of a zone's slots is called."""
    return f"slots {zone}"


async def check_production(evidence: Evidence) -> Sequence[Finding]:
    """Production; notes what it knows of the archive."""

    async def more(conn: AnyConnection) -> str:
        row = await conn.fetchrow(_ARCHIVED)
        assert row is not None
        evidence.archived = Archived(row["objects"], row["newest_at"])
        return f"{row['objects']} objects archived"

    return [await _check(evidence, "production", evidence.settings.production, "production", more)]


async def _check(
    evidence: Evidence, name: str, store: CheckedStore, kind: DatabaseKind, more: More
) -> Finding:
    check = database_check(name)
    if not evidence.is_inside and not await evidence.has_address(store.host):
        return skipped(check, f"{store.host} has no address here; helm test asks it from inside")
    try:
        target = target_of(store)
    except (OSError, UnicodeDecodeError) as error:
        if not evidence.is_inside:
            return skipped(check, f"its password is not here ({error})")
        return fail(check, f"its password cannot be read: {error}", "mount the role's Secret")
    try:
        return await _patiently(evidence, check, target, kind, more)
    except StoreRefused as error:
        advice = (
            "the role's Secret and the database's password differ; both must be changed together"
        )
        return fail(check, f"{target.address} refuses: {error}", advice)
    except StoreError as error:
        advice = (
            "look at its pod and events; if it runs, at the network policy between it and this pod"
        )
        return fail(check, f"{target.address}: {error}", advice)


def target_of(store: CheckedStore) -> Target:
    """Say where the database is, with the password of this moment.

    Raises:
        OSError, UnicodeDecodeError: the password's file is not there, or cannot be read.
    """
    if store.password.reveal():
        return store.target()
    password = Secret.from_file(Path(store.secret_file))
    return replace(store, password=password, secret_file="").target()


async def _patiently(
    evidence: Evidence, check: str, target: Target, kind: DatabaseKind, more: More
) -> Finding:
    for _ in range(ATTEMPTS - 1):
        try:
            return await _look(evidence, check, target, kind, more)
        except StoreUnavailable:
            await asyncio.sleep(PAUSE_S)
    return await _look(evidence, check, target, kind, more)


async def _look(
    evidence: Evidence, check: str, target: Target, kind: DatabaseKind, more: More
) -> Finding:
    """Connect and ask; raises StoreError."""
    async with connect(target, APPLICATION) as conn:
        with map_store_errors():
            asked_at = evidence.clock.now()
            shown = await conn.fetchval(_CLOCK)
            evidence.samples.append(Sample(check, asked_at, shown, evidence.clock.now()))
            found = await read_level(conn)
            fault = level_fault(kind, found, LEVELS[kind])
            if fault is not None:
                return fail(check, fault, "look at the release's migrate job: kubectl logs job/...")
            assert found is not None
            return ok(check, f"{target.address}: schema level {found[0]}, {await more(conn)}")
