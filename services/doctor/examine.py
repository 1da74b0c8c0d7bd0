"""The checks of the exchange, what each needs, and in which order they are reported.

What else an installation can be asked (databases, bucket, cluster) would be further lists of checks beside EXCHANGE's.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from libs.exchange.environments import Endpoints
from libs.runtime.clock import Clock
from services.doctor import book_check, rest_checks, socket_checks
from services.doctor.evidence import Evidence, gather_evidence
from services.doctor.findings import Finding
from services.doctor.judge_account import BUDGET, CONNECTIONS, judge_connections
from services.doctor.judge_book import ORIENTATION
from services.doctor.judge_clock import CHECK as CLOCK
from services.doctor.judge_clock import bounds_of_dates, bounds_of_frames, judge_clock
from services.doctor.judge_exchange import REST, SCHEDULE, STATUS
from services.doctor.judge_key import ACCEPTED, FILE
from services.doctor.rest_checks import MARKET
from services.doctor.runner import Check, run_checks
from services.doctor.settings import DoctorSettings, Plan
from services.doctor.socket_checks import PING, UNSIGNED, WEBSOCKET

CHANNELS = "channels"


async def examine(
    ends: Endpoints,
    settings: DoctorSettings,
    plan: Plan,
    clock: Clock,
    timeout_s: float,
    *,
    quick: bool = False,
    running: Callable[[Sequence[str]], None] = lambda _names: None,
) -> list[Finding]:
    """Ask the exchange everything; bounded by timeout_s, seconds. Raises nothing: what goes wrong is a finding."""
    async with gather_evidence(ends, settings, plan, clock, quick=quick) as evidence:
        return await run_checks(exchange_checks(evidence), timeout_s, running)


def exchange_checks(evidence: Evidence) -> list[Check]:
    """List the checks; each runs as soon as what it needs is there."""
    rest, socket = rest_checks, socket_checks
    looks: list[
        tuple[str, Callable[[Evidence], Awaitable[Sequence[Finding]]], tuple[str, ...], tuple[str, ...]]
    ] = [
        (FILE, rest.check_key_file, (), ()),
        (REST, rest.check_reach, (), ()),
        (STATUS, rest.check_status, (REST,), ()),
        (SCHEDULE, rest.check_schedule, (REST,), ()),
        (ACCEPTED, rest.check_account, (FILE, REST), ()),
        (MARKET, rest.check_market, (ACCEPTED,), ()),
        (BUDGET, rest.check_budget, (ACCEPTED,), (MARKET,)),
        (CONNECTIONS, _check_connections, (), ()),
        (UNSIGNED, socket.check_unsigned, (), ()),
        (WEBSOCKET, socket.check_websocket, (FILE,), ()),
        (PING, socket.check_ping, (WEBSOCKET,), ()),
        (CHANNELS, socket.check_channels, (WEBSOCKET,), (MARKET, STATUS)),
        (ORIENTATION, book_check.check_orientation, (WEBSOCKET, MARKET), ()),
    ]  # fmt: skip
    before = tuple(name for name, *_ in looks)
    looks.append((CLOCK, _check_clock, (), before))
    return [Check(name, partial(run, evidence), needs, after) for name, run, needs, after in looks]


async def _check_connections(evidence: Evidence) -> Sequence[Finding]:
    return [judge_connections(evidence.settings.account, evidence.settings.slots)]


async def _check_clock(evidence: Evidence) -> Sequence[Finding]:
    return [judge_clock(bounds_of_dates(evidence.dated), bounds_of_frames(evidence.stamps))]
