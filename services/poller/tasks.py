"""The poller's loops."""

from libs.runtime.repeat import repeat
from libs.runtime.service import Runtime
from services.poller.healing import Healer
from services.poller.rounds import Rounds


async def poll_books(runtime: Runtime, rounds: Rounds) -> None:
    """Take round after round; a round waits for its own end."""
    await repeat(runtime, "poll-books", rounds.round_once, 0.0)


async def heal_trades(runtime: Runtime, healer: Healer, period_s: float) -> None:
    """Repair the trade channel's gaps."""
    await repeat(runtime, "heal-trades", healer.repair_once, period_s)
