"""The poller's loops."""

from typing import Final

from libs.runtime.repeat import repeat
from libs.runtime.rest import BURST_S, Rest
from libs.runtime.service import Runtime
from libs.telemetry.logging import get_logger
from services.poller.checking import Checker
from services.poller.healing import Healer
from services.poller.pace import Pace
from services.poller.rounds import Rounds

log = get_logger(__name__)

PACE_S: Final = 1.0
"""Seconds between looks at whether the exchange refused us."""
CHECK_S: Final = 10.0
"""Seconds between looks for answers whose time to be compared has come."""


async def poll_books(runtime: Runtime, rounds: Rounds) -> None:
    """Take round after round; a round waits for its own end."""
    await repeat(runtime, "poll-books", rounds.round_once, 0.0)


async def heal_trades(runtime: Runtime, healer: Healer, period_s: float) -> None:
    """Repair the trade channel's gaps."""
    await repeat(runtime, "heal-trades", healer.repair_once, period_s)


async def check_books(runtime: Runtime, checker: Checker, delay_s: float) -> None:
    """Compare answers with what the streams heard."""
    await repeat(runtime, "check-books", checker.check_once, min(CHECK_S, delay_s))


async def keep_pace(runtime: Runtime, rest: Rest, pace: Pace) -> None:
    """Ask slower after refusals, and faster again when there are none."""
    while True:
        pace_once(runtime, rest, pace)
        if not await runtime.sleep(PACE_S):
            return


async def keep_limits(runtime: Runtime, rest: Rest, pace: Pace) -> None:
    """Take over another share of the account; what refusals have slowed down stays slower."""

    def take_over(allowed: float) -> None:
        pace.allow(allowed)
        rest.bucket.set_rate(runtime.clock.monotonic(), pace.rate, max(1.0, pace.rate * BURST_S))

    await rest.keep_to_account_limits(runtime, take_over)


def pace_once(runtime: Runtime, rest: Rest, pace: Pace) -> None:
    """Give the bucket the rate of this moment."""
    now_s = runtime.clock.monotonic()
    before, slowed = pace.rate, pace.slowed
    rate = pace.adjust(now_s, rest.client.limited)
    runtime.metrics.rest_reads_per_second.set(rate)
    if rate != before:
        rest.bucket.set_rate(now_s, rate, max(1.0, rate * BURST_S))
    if pace.slowed > slowed:
        log.warning("reads_slowed_down", reads_per_s=rate, allowed=pace.allowed)
