"""Another number of slots moves markets, each make-before-break: the old slot keeps it until the new one hears it."""

from typing import Any, Final

from libs.store.catalogue import lend
from libs.store.leases import Lease
from libs.store.notify import Notifier
from libs.store.pool import Pool
from libs.store.slot_moves import count_moving, end_moves, heard_in_new_slot
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

ENDED_AT_ONCE: Final = 10_000
"""Most moves that one transaction ends."""


class Mover:
    """Ends moves. settle: for how long a market is to be heard in both slots, microseconds."""

    def __init__(self, pool: Pool, notifier: Notifier, lease: Lease, settle: int) -> None:
        self._pool = pool
        self._notifier = notifier
        self._lease = lease
        self._settle = settle
        self.moving = 0
        self.ended = 0

    def facts(self) -> dict[str, Any]:
        """Say in /health how many markets are in two slots, and how many have arrived."""
        return {"moving": self.moving, "ended": self.ended}

    async def end_once(self) -> None:
        """Take the markets that have arrived out of the slots they came from."""
        async with lend(self._pool) as conn:
            self.moving = await count_moving(conn)
            heard = await heard_in_new_slot(conn, self._settle, ENDED_AT_ONCE)
            if not heard:
                return
            slots = await end_moves(conn, heard, self._lease)
            self.moving = await count_moving(conn)
        if slots:
            self._notifier.poke()
        self.ended += len(heard)
        log.info("markets_moved", markets=len(heard), slots_left=len(slots), moving=self.moving)
