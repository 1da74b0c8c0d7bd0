"""Telling of deaths that nobody told: a connector's pod that was killed has no successor of its name."""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from libs.marketdata.units import SECOND
from libs.store.catalogue import lend
from libs.store.deaths import LOOKBACK_S, SETTLE_S, Ended, ended_lately, untold_deaths
from libs.store.pool import Pool
from libs.store.scribe import Scribe
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

LOOKED_MAX: Final = 20_000
"""Lanes that are remembered: a day of a connector that ends every 20 seconds. One that is forgotten is looked at again."""


class Deaths:
    """Looks at lanes that were closed lately, whoever closed them, and writes the causes of what was left open on them.

    Args of the constructor: `now` gives wall time in microseconds; settle_s as in libs/store/deaths.py.
    """

    def __init__(
        self, pool: Pool, scribe: Scribe, now: Callable[[], int], settle_s: float = SETTLE_S
    ) -> None:
        self._pool = pool
        self._scribe = scribe
        self._now = now
        self._settle_s = settle_s
        self._looked: dict[UUID, int] = {}
        self.told = 0

    def facts(self) -> dict[str, Any]:
        """Say in /health how many sids of the dead were told of."""
        return {"deaths_told": self.told}

    def forget(self) -> None:
        """Look at everything again: the database went back, and what was told is perhaps no longer there."""
        self._looked.clear()

    async def tell_once(self) -> None:
        """Look at a bounded number of processes that ended; the next turn goes on."""
        async with lend(self._pool) as conn:
            found = await ended_lately(conn, self._looked, settle_s=self._settle_s)
        for ended in found:
            await self._tell(ended)
        self._trim()

    async def _tell(self, ended: Ended) -> None:
        async with lend(self._pool) as conn:
            gaps = await untold_deaths(
                conn, ended.process, ended.lanes, self._now(), received_to=ended.ended_at
            )
        if gaps:
            await self._scribe.write({"gaps": gaps})
            self.told += len(gaps)
            log.warning(
                "death_told", process=ended.process, instance=ended.instance, sids=len(gaps)
            )
        # Only now: what is not known to be committed is asked for again, and found if it was.
        self._looked |= dict.fromkeys(ended.lanes, ended.ended_at)

    def _trim(self) -> None:
        """Forget what no query returns any more, and the oldest of what is too much."""
        oldest = self._now() - int(2 * LOOKBACK_S * SECOND)
        kept = sorted(
            ((lane, at) for lane, at in self._looked.items() if at >= oldest),
            key=lambda one: one[1],
        )
        self._looked = dict(kept[-LOOKED_MAX:])
