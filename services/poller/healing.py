"""Healing the trade channel: what nobody heard is read back from the exchange's tape and stored."""

from collections.abc import Sequence
from typing import Any, Final

from libs.exchange.errors import AuthRejected, ExchangeError
from libs.marketdata.listening import Span
from libs.marketdata.units import SECOND
from libs.runtime.clock import Clock
from libs.store.catalogue import lend
from libs.store.pool import Pool
from libs.store.trade_repairs import (
    Ending,
    Repair,
    count_repairs,
    due_repairs,
    end_repair,
    forget_repairs,
    note_attempt,
    note_progress,
    repaired_spans,
    unhealed_spans,
)
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.poller.following import Follower
from services.poller.repair import Limits, unheard_parts
from services.poller.settings import PollerSettings
from services.poller.tape import Reading, Tape

log = get_logger(__name__)

REPAIRS_MAX: Final = 200
"""Repairs run in one turn."""
ATTEMPTS_MAX: Final = 5
"""An answer that cannot be read is asked for this often; an exchange that is away is waited for without end."""
FAULTS_MAX: Final = 3
"""Repairs of one turn that may go unanswered before the rest waits for the next."""
KEEP_S: Final = 7 * 86_400.0
"""Ended repairs are remembered this long, seconds."""
SHOWN_MAX: Final = 10


class Healer:
    """Notes what the trade channel did not hear and repairs it, oldest first.

    Attributes: repaired counts ended repairs, trades the rows stored, unreadable the trades that could not be read;
    states how many repairs are remembered by state, unhealed the newest spans that could not be healed whole.
    """

    def __init__(
        self, follower: Follower, tape: Tape, pool: Pool, clock: Clock, metrics: Metrics, limits: Limits
    ) -> None:  # fmt: skip
        self._follower = follower
        self._tape = tape
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self.repaired = self.trades = self.unreadable = 0
        self.states: dict[str, int] = {}
        self.unhealed: list[dict[str, object]] = []

    def facts(self) -> dict[str, Any]:
        """Say in /health what was healed, what waits, and what could not be healed."""
        return {
            "waiting": self.states.get("open", 0),
            "repaired": self.repaired,
            "trades": self.trades,
            "unreadable": self.unreadable,
            "remembered": self.states,
            "unhealed": self.unhealed,
        }

    async def repair_once(self) -> None:
        """Read what is new of the ledger and repair what is due.

        Raises:
            ExchangeError, StoreUnavailable: what is not repaired stays open; call again.
            LeaseNotHeld: another process heals now.
        """
        now = self._clock.now()
        await self._follower.follow_once(now)
        async with lend(self._pool) as conn:
            due = await due_repairs(conn, now, REPAIRS_MAX)
        unanswered = await self._try_all(due)
        async with lend(self._pool) as conn:
            await forget_repairs(conn, KEEP_S)
            self.states = await count_repairs(conn)
            self.unhealed = await unhealed_spans(conn, SHOWN_MAX)
        self._metrics.trade_repairs_open.set(self.states.get("open", 0))
        if unanswered is not None:
            raise unanswered

    async def _try_all(self, due: Sequence[Repair]) -> ExchangeError | None:
        """Run repairs; return the first fault that a later turn may not meet.

        One span that is not answered keeps no other one waiting; an exchange that is away is not asked for all of them.
        """
        faults: list[ExchangeError] = []
        for repair in due:
            try:
                await self._try(repair)
            except AuthRejected:
                raise
            except ExchangeError as error:
                faults.append(error)
                if len(faults) == FAULTS_MAX:
                    break
        return faults[0] if faults else None

    async def _try(self, repair: Repair) -> None:
        """Run one repair; an answer that cannot be used is tried again later, and given up visibly in the end."""
        try:
            ending = await self._run(repair)
        except AuthRejected:
            raise
        except ExchangeError as error:
            if error.retryable:
                raise
            text = f"{type(error).__name__}: {error}"
            async with lend(self._pool) as conn:
                if await note_attempt(conn, repair.repair, text) < ATTEMPTS_MAX:
                    log.warning("trades_not_repaired", repair=repair.repair, error=text)
                    return
            ending = Ending("failed", text)
        async with lend(self._pool) as conn:
            await end_repair(conn, repair.repair, ending)
        self._note(repair, ending)

    async def _run(self, repair: Repair) -> Ending:
        oldest = self._clock.now() - self._limits.age_max
        span = (max(repair.from_ts, oldest), min(repair.reached_ts, repair.to_ts))
        async with lend(self._pool) as conn:
            healed = await repaired_spans(conn, repair.from_ts)
        parts = unheard_parts(span, self._follower.heard(), healed)
        if span[0] > repair.from_ts and span[0] >= span[1]:
            return Ending("partial", "older than repair_age_s_max")
        if not parts and repair.reached_ts == repair.to_ts:
            return Ending("heard", "")
        reading = await self._read(repair, parts)
        return await self._judge(repair, span, reading)

    async def _read(self, repair: Repair, parts: Sequence[Span]) -> Reading:
        async def progress(reached_ts: int, read: int, stored: int) -> None:
            self.trades += stored
            self._metrics.trades_healed_total.inc(stored)
            async with lend(self._pool) as conn:
                await note_progress(conn, repair.repair, reached_ts, read, stored)

        reading = Reading()
        for part in parts:
            reading = reading.plus(await self._tape.heal(repair.ticker, part, progress))
        self.unreadable += reading.unreadable
        return reading

    async def _judge(self, repair: Repair, span: Span, reading: Reading) -> Ending:
        """Say how far the span is whole: the tape must reach beyond its beginning, and every trade be readable."""
        faults = []
        if span[0] > repair.from_ts:
            faults.append(f"before {span[0]} it is older than repair_age_s_max")
        if not await self._tape.reaches_before(span[0]):
            known = f"; its oldest trade read is of {reading.oldest}" if reading.oldest else ""
            faults.append(f"the tape holds nothing before the span{known}")
        if reading.unreadable:
            faults.append(f"{reading.unreadable} trades could not be read")
        return Ending("partial", "; ".join(faults)) if faults else Ending("healed", "")

    def _note(self, repair: Repair, ending: Ending) -> None:
        self.repaired += 1
        self._metrics.trade_repairs_total.labels(ending.state).inc()
        if ending.state == "heard":
            return
        write = log.info if ending.state == "healed" else log.warning
        write(
            "trades_repaired", ticker=repair.ticker, from_ts=repair.from_ts, to_ts=repair.to_ts,
            state=ending.state, detail=ending.detail,
        )  # fmt: skip


def limits_of(settings: PollerSettings) -> Limits:
    """Return the settings' seconds as microseconds."""
    return Limits(
        int(settings.repair_delay_s * SECOND),
        int(settings.repair_silence_s * SECOND),
        int(settings.repair_age_s_max * SECOND),
    )
