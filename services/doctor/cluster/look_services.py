"""Asks the health server of each service of a release."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from libs.archive.trial import UNTRIED
from libs.runtime.health import fetch_health
from libs.runtime.version import build_info
from services.doctor.cluster.evidence import Evidence, host_and_port
from services.doctor.cluster.judge_clocks import Sample
from services.doctor.cluster.judge_services import (
    bucket_outcome,
    judge_archive,
    judge_exchange,
    judge_service,
    service_check,
)
from services.doctor.findings import Finding, fail, skipped

ATTEMPTS, PAUSE_S, TIMEOUT_S = 4, 1.5, 4.0
"""A policy takes some seconds to follow a new pod."""
ADVICE: Final = (
    "look at its pod and events; if it runs, at the network policy between it and this pod"
)


async def check_service(evidence: Evidence, base: str) -> Sequence[Finding]:
    """One address; what answers says itself which service it is."""
    try:
        host, port = host_and_port(base)
    except ValueError as error:
        return [fail(base, str(error), "correct health in doctor.yaml")]
    if not evidence.is_inside and not await evidence.has_address(host):
        return [skipped(base, f"{host} has no address here; helm test asks it from inside")]
    error_said = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        asked_at = evidence.clock.now()
        try:
            document = await fetch_health(port, host, TIMEOUT_S)
        except (OSError, ValueError) as error:
            error_said = str(error)
            continue
        evidence.documents[base] = document
        if isinstance(document.get("now"), int):
            name = service_check(document)
            evidence.samples.append(Sample(name, asked_at, document["now"], evidence.clock.now()))
        return [judge_service(document, build_info().version)]
    return [fail(base, f"does not answer: {error_said}", ADVICE)]


async def check_exchange(evidence: Evidence, zone: str) -> Sequence[Finding]:
    """One zone's key, by what its services say."""
    return [judge_exchange(zone, list(evidence.documents.values()))]


async def check_archive(evidence: Evidence) -> Sequence[Finding]:
    """The archive, by what the archiver and production say."""
    await _await_trial(evidence)
    documents = list(evidence.documents.values())
    return [judge_archive(documents, evidence.archived, evidence.clock.now())]


async def _await_trial(evidence: Evidence) -> None:
    """Ask an archiver that has not tried its bucket yet again, as often as one that does not answer."""
    found = evidence.documents
    for base in [base for base in found if found[base].get("service") == "archiver"]:
        host, port = host_and_port(base)
        for _ in range(ATTEMPTS - 1):
            if bucket_outcome(found[base]) != UNTRIED:
                break
            await asyncio.sleep(PAUSE_S)
            # It answered a moment ago: if it does not now, what it said then is judged.
            with suppress(OSError, ValueError):
                found[base] = await fetch_health(port, host, TIMEOUT_S)
