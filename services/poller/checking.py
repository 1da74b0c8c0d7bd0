"""Checking stored books against the exchange's own answers: a sample of every round, each market within a day.

The rounds' answers are used, nothing more is asked. A market of the sample is compared some time after its answer, when
what the stream heard until then is committed. Its base is its last book from the socket if that is recent, else its
answer of the round before.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

from libs.exchange.convert import rest_ladders
from libs.exchange.rest_wire import RestBook
from libs.marketdata.rebuild import levels_of
from libs.marketdata.units import SECOND, ValueDoesNotFit
from libs.runtime.clock import Clock
from libs.store.book_checks import CheckRow, add_checks, forget_checks
from libs.store.catalogue import get_state, lend, set_state
from libs.store.pool import Pool
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.poller.agreement import Verdict, judge
from services.poller.evidence import Evidence, Pair, read_evidence
from services.poller.sample import next_slice, sample_size
from services.poller.settings import PollerSettings
from services.poller.streams import Chosen, Look, Patience

log = get_logger(__name__)

STATE_KEY: Final = "book_check_after"
LOOKS_MAX: Final = 2_500
"""Looks of one turn: what is read of the last minutes serves them all."""
SHARE: Final = 0.1
"""Part of the time that comparing may take: a large zone's last minutes take long to read."""
REST_S_MAX: Final = 600.0
WAITING_MAX: Final = 50_000
"""Looks that may wait; beyond, the oldest is not checked."""
KEEP_S: Final = 7 * 86_400.0
"""Results are kept this long, seconds."""


class Checker:
    """Takes looks of the rounds and says whether our streams agree.

    Attributes: outcomes counts them since the start; sample is how many markets the present round checks.
    """

    def __init__(
        self, pool: Pool, clock: Clock, metrics: Metrics, settings: PollerSettings
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._patience = Patience(
            int(settings.check_stale_s * SECOND), int(settings.check_skew_s * SECOND)
        )
        self._delay = int(settings.check_delay_s * SECOND)
        self._lookback = int(settings.check_lookback_s * SECOND)
        self._now: frozenset[str] = frozenset()
        self._next: frozenset[str] | None = None
        self._next_last = ""
        self._earlier: dict[str, Look] = {}
        self._waiting: deque[Pair] = deque()
        self._asked: set[str] = set()
        self._rests_until = 0.0
        self.outcomes = {"agree": 0, "disagree": 0, "unknown": 0}
        self.reasons: dict[str, int] = {}

    def facts(self) -> dict[str, Any]:
        """Say in /health how the books agree."""
        return {
            **self.outcomes,
            "reasons": self.reasons,
            "sample": len(self._now),
            "waiting": len(self._waiting),
        }

    async def begin_round(self, tickers: Sequence[str], period_s: float) -> None:
        """Choose which of a round's markets (ascending) are checked in it, and which in the next."""
        size = sample_size(len(tickers), self._settings.check_sample, period_s)
        if self._settings.check_sample == 0 or not tickers:
            self._now = self._next = frozenset()
            return
        async with lend(self._pool) as conn:
            if self._next is None:
                chosen = next_slice(tickers, await get_state(conn, STATE_KEY) or "", size)
                self._now, self._next_last = frozenset(chosen), chosen[-1]
            else:
                self._now = self._next
            last = self._next_last
            following = next_slice(tickers, last, size)
            self._next, self._next_last = frozenset(following), following[-1]
            await set_state(conn, STATE_KEY, last)
        kept = self._now | self._next
        self._earlier = {t: look for t, look in self._earlier.items() if t in kept}

    def offer(self, books: Iterable[RestBook], requested_at: int, received_at: int) -> None:
        """Take those of an answer's books that are to be checked, now or in the next round."""
        following = self._next or frozenset()
        for book in books:
            ticker = book.ticker
            if ticker not in self._now and ticker not in following:
                continue
            try:
                levels = levels_of(*rest_ladders(book))
            except ValueDoesNotFit:
                continue
            look = Look(ticker, requested_at, received_at, levels)
            earlier = self._earlier.pop(ticker, None)
            if ticker in self._now and ticker not in self._asked:
                self._asked.add(ticker)
                self._waiting.append((look, earlier))
            if ticker in following:
                self._earlier[ticker] = look
        while len(self._waiting) > WAITING_MAX:
            self._asked.discard(self._waiting.popleft()[0].ticker)
            self._count("unknown", "late")

    async def check_once(self) -> None:
        """Compare the looks whose time has come, unless the last turn took so long that it is to rest.

        Raises:
            StoreUnavailable: the looks of this turn wait for the next.
        """
        began = self._clock.monotonic()
        due = self._take_due() if began >= self._rests_until else []
        if not due:
            return
        try:
            await self._compare(due)
        except BaseException:
            self._waiting.extendleft(reversed(due))
            raise
        finally:
            ended = self._clock.monotonic()
            self._rests_until = ended + min((ended - began) * (1 / SHARE - 1), REST_S_MAX)

    async def _compare(self, due: Sequence[Pair]) -> None:
        per_market = self._settings.check_deltas_max
        async with lend(self._pool) as conn:
            evidence = await read_evidence(
                conn, due, self._patience, self._lookback, per_market + 1
            )
            rows = []
            for look, earlier in due:
                rows.append(self._judge(look, earlier, evidence))
                await asyncio.sleep(0)
            await add_checks(conn, rows)
            await forget_checks(conn, KEEP_S)
        for row in rows:
            self._asked.discard(row.ticker)
            self._count(row.outcome, row.reason)
            if row.outcome == "disagree":
                log.warning("book_disagrees", **row._asdict())

    def _take_due(self) -> list[Pair]:
        """Take them out, since more may be offered while they are compared and the oldest go then."""
        until = self._clock.now() - self._delay
        due: list[Pair] = []
        while self._waiting and len(due) < LOOKS_MAX and self._waiting[0][0].received_at <= until:
            due.append(self._waiting.popleft())
        return due

    def _judge(self, look: Look, earlier: Look | None, evidence: Evidence) -> CheckRow:
        entry = evidence.chosen.get(look.ticker)
        deltas = evidence.deltas.get(look.ticker, [])
        is_cut = evidence.cut_from is not None and look.ticker >= evidence.cut_from
        if entry is None:
            verdict = Verdict("unknown", "no_base" if earlier is None else "not_heard")
        elif is_cut or len(deltas) > self._settings.check_deltas_max:
            verdict = Verdict("unknown", "too_busy")
        else:
            verdict = judge(entry.base, deltas, look.levels, self._patience.window(look))
        return _row(look, entry, verdict, len(deltas))

    def _count(self, outcome: str, reason: str) -> None:
        self.outcomes[outcome] += 1
        self._metrics.book_checks_total.labels(outcome).inc()
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


def _row(look: Look, entry: Chosen | None, verdict: Verdict, deltas: int) -> CheckRow:
    return CheckRow(
        ticker=look.ticker,
        outcome=verdict.outcome,
        reason=verdict.reason,
        base=entry.kind if entry else "",
        requested_at=look.requested_at,
        received_at=look.received_at,
        base_at=entry.base_at if entry else None,
        matched_ts=verdict.matched_ts,
        deltas=deltas,
        connection=entry.stream.connection if entry else None,
        sid=entry.stream.sid if entry else None,
        detail=verdict.detail,
    )
