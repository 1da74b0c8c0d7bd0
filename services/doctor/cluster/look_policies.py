"""Tries to connect where the policy table allows nothing: a policy that nobody enforces looks like one that is."""

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from services.doctor.cluster.evidence import Evidence
from services.doctor.cluster.settings import ForbiddenEdge
from services.doctor.findings import Finding, fail, ok, skipped, warn

CHECK: Final = "policies"
CONNECT_S: Final = 3.0
ATTEMPTS, PAUSE_S = 3, 3.0
"""Before a policy follows a new pod, everything is open to it: what is open is tried again."""
ADVICE: Final = (
    'network policies are not enforced: on EKS give the add-on vpc-cni enableNetworkPolicy: "true" (an add-on\'s'
    " configuration value), elsewhere use a network plugin that enforces them; everybody in the cluster reaches the databases"
)

Answer = Literal["open", "refused", "silent", "unknown"]


class Tried(NamedTuple):
    """An edge and what came of it: open, refused (something answered no), silent, unknown (the name has no address)."""

    name: str
    answer: Answer


async def check_policies(evidence: Evidence) -> Sequence[Finding]:
    """Try every forbidden edge."""
    if not evidence.settings.forbidden:
        return [skipped(CHECK, "the release has no network policies, or no edge is named")]
    if not evidence.is_inside:
        return [skipped(CHECK, "policies are for pods; helm test tries them from inside")]
    tried: list[Tried] = []
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(PAUSE_S)
        work = (_try(edge) for edge in evidence.settings.forbidden)
        tried = list(await asyncio.gather(*work))
        if not any(one.answer == "open" for one in tried):
            break
    return [judge_policies(tried)]


def judge_policies(tried: Sequence[Tried]) -> Finding:
    """One open edge is one too many; silence is what a policy looks like, a refusal may be nobody's."""
    of: dict[Answer, list[str]] = {"open": [], "refused": [], "silent": [], "unknown": []}
    for one in tried:
        of[one.answer].append(one.name)
    if of["open"]:
        return fail(CHECK, f"reached what is forbidden: {', '.join(of['open'])}", ADVICE)
    if of["silent"]:
        return ok(
            CHECK, f"{len(of['silent'])} of {len(tried)} forbidden edges lead nowhere, none is open"
        )
    if of["refused"]:
        advice = "start what is named there, or name what listens: forbidden in doctor.yaml"
        return warn(
            CHECK, f"refused, which a policy rarely does: {', '.join(of['refused'])}", advice
        )
    return skipped(CHECK, f"no address: {', '.join(of['unknown'])}")


async def _try(edge: ForbiddenEdge) -> Tried:
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(edge.host, edge.port)
    except TimeoutError:
        return Tried(edge.name, "silent")
    except ConnectionRefusedError:
        return Tried(edge.name, "refused")
    except OSError as error:
        # A name that has no address is an OSError of its own kind; the rest says that no way leads there.
        is_unknown = type(error).__name__ == "gaierror"
        return Tried(edge.name, "unknown" if is_unknown else "silent")
    writer.transport.abort()
    return Tried(edge.name, "open")
