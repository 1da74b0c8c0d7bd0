"""Following the zone's ledger for what the trade channel did not hear: new claims and gap rows in, repairs noted.

What is known stands in the database, changed in the same transaction as the repairs that follow from it: a restart, and
a database that was restored, go on from what the database says.
"""

from typing import Final
from uuid import UUID

from libs.marketdata.listening import Span
from libs.marketdata.tables import Family
from libs.store.catalogue import get_state, lend, set_state
from libs.store.leases import Lease
from libs.store.listen_tail import drop_dead_cursors, read_listen_tail
from libs.store.pool import AnyConnection, Pool
from libs.store.tail import read_tail
from libs.store.trade_repairs import NewRepair, add_repairs, repaired_spans
from services.poller.hearing import Hearing, from_text, to_text
from services.poller.repair import TRADE_CHANNEL, Limits, gap_repair, hole_repairs

STATE_KEY: Final = "trade_hearing"
PAGES_MAX: Final = 20
"""Pages of the ledger read before what is known is written down."""


class Follower:
    """Knows what of the trade channel was heard, and notes what was not as repairs."""

    def __init__(self, pool: Pool, limits: Limits, lease: Lease | None) -> None:
        self._pool = pool
        self._limits = limits
        self._lease = lease
        self._text: str | None = None
        self._hearing = Hearing()
        self._gap_lanes: dict[UUID, int] = {}

    def heard(self) -> list[Span]:
        """Return the spans in which the channel was heard, as far as follow_once() read."""
        return self._hearing.spans()

    async def follow_once(self, now: int) -> None:
        """Read what is new and note repairs.

        Args:
            now: microseconds.

        Raises:
            StoreUnavailable: call again; nothing is lost.
            LeaseNotHeld: another process follows now.
        """
        is_end = False
        while not is_end:
            async with lend(self._pool) as conn:
                await self._load(conn)
                is_end = await self._read_claims(conn)
                gaps = await self._read_gaps(conn) if is_end else []
                await self._write(conn, gaps, now if is_end else None)

    async def _load(self, conn: AnyConnection) -> None:
        """Take what the database says over what we remember: it may have been restored."""
        text = await get_state(conn, STATE_KEY)
        if text != self._text or text is None:
            self._hearing, self._gap_lanes = from_text(text)
            self._text = text

    async def _read_claims(self, conn: AnyConnection) -> bool:
        for _ in range(PAGES_MAX):
            tail = await read_listen_tail(conn, Family.TRADES, TRADE_CHANNEL, self._hearing.lanes)
            self._hearing.absorb(tail.ranges, tail.opened, tail.closed)
            self._hearing.lanes = dict(tail.cursors)
            if tail.is_end:
                return True
        return False

    async def _read_gaps(self, conn: AnyConnection) -> list[NewRepair]:
        heard, found = self.heard(), []
        while True:
            tail = await read_tail(conn, "gaps", self._gap_lanes)
            gaps = [gap for gap in tail.rows if gap.channel == TRADE_CHANNEL]
            found += [gap_repair(gap, heard, self._limits) for gap in gaps]
            self._gap_lanes = dict(tail.cursors)
            if tail.is_end:
                self._gap_lanes = await drop_dead_cursors(conn, self._gap_lanes)
                return found

    async def _write(self, conn: AnyConnection, repairs: list[NewRepair], now: int | None) -> None:
        """Write down what is known, and the repairs for what is missing; None: more is to be read first."""
        if now is not None:
            oldest = now - self._limits.age_max
            self._hearing.forget_before(oldest)
            noted = await repaired_spans(conn, oldest, with_open=True)
            repairs = [*repairs, *hole_repairs(self.heard(), noted, now, self._limits)]
        text = to_text(self._hearing, self._gap_lanes)
        if text == self._text and not repairs:
            return
        async with conn.transaction(isolation="read_committed"):
            await add_repairs(conn, repairs)
            await set_state(conn, STATE_KEY, text, self._lease)
        self._text = text
