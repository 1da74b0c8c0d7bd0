"""Judging frames: every number is checked before its message counts, and what is lost is written down.

A gap, a frame that cannot be read, a number that was there already: each has one consequence for the sid's streams, one
row that keeps the evidence, and one row that names the cause.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from libs.exchange import commands, wire
from libs.flow.placement import kind_of
from libs.marketdata.rows import RejectedFrameRow, gap
from libs.marketdata.sequence import Margin, Step
from libs.marketdata.tables import Family
from libs.marketdata.units import DAY, SECOND
from services.connector.errors import NumbersReused
from services.connector.markets import Markets
from services.connector.outlets import Outlets
from services.connector.sids import Sid

FAMILY_OF_KIND = {
    "orderbook": Family.DELTAS,
    "ticker": Family.TICKERS,
    "trade": Family.TRADES,
    "lifecycle": Family.REST,
}
"""The family that carries a slot's ranges, by the slot's kind."""
OLD_MAX = 20
"""Frames with old numbers, and none with a new one between, after which a sid's numbering is given up.

A repeated frame or two are the exchange's slip and cost nothing; 20 in a row have never been seen (reference: none in
80,000) and are numbers that began anew, or that one garbled number far ahead has made old: no frame would count again."""
OLD_FOR_MAX = 5 * SECOND
"""The same for a quiet sid, microseconds: longer than any reordering inside one connection, shorter than a probe's turn,
so that the first two answers to probes are enough."""
SENDING_EARLY_MAX = 60 * SECOND
"""No frame was sent before its connection was opened, and an exchange opens none to a clock that is a minute off (reference,
section 2): an earlier sending time is none, microseconds, or it would claim what was before the connection."""
SENDING_LATE_MAX = DAY
"""A sending time further from our clock than this is none, microseconds: a wrong unit or a wild value would stretch a claim
over years. No clock that a machine keeps is a day wrong, so nothing true is lost; then our own stands in."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session needs to know; times in microseconds.

    wants: which tickers' rows of whole channels are kept; None: all. chunk: most tickers in a command. probe: silence after which an order-book sid is asked for a frame. silence:
    after which a sid without seq counts as interrupted. answer: longest wait for a command's answer.
    """

    use_yes_price: bool = False
    wants: Callable[[str], bool] | None = None
    chunk: int = commands.TICKERS_PER_COMMAND_MAX
    probe: int = 10 * SECOND
    silence: int = 30 * SECOND
    answer: int = 30 * SECOND


class Judge:
    """The sids of one connection and the rules every frame passes first.

    It lives by two clocks. `now`, an argument everywhere, is wall time and stands in rows. `moment` is one that is never set;
    every duration is measured by it, and it carries the wall time of the connection's opening on (`steady_now`), by which
    sending times are judged and which stands in where there is none. So a step of our wall clock moves nothing but
    what rows say of their receipt.

    Attributes:
        noted: counts of gaps, rejected frames, regressions, late facts, refusals and dead subscriptions.
        moment: as above, microseconds.
    """

    def __init__(
        self,
        slot: str,
        connection: UUID,
        outlets: Outlets,
        settings: SessionSettings,
        now: int,
        moment: int,
    ) -> None:
        self.slot = slot
        self.kind = kind_of(slot)
        self.connection = connection
        self.outlets = outlets
        self.settings = settings
        self.noted: Counter[str] = Counter()
        self.margin = Margin()
        self.sids: dict[int, Sid] = {}
        self.ids = commands.CommandIds()
        self.markets = Markets(self.ids, settings.chunk, use_yes_price=settings.use_yes_price)
        self.moment = moment
        self._started = now - moment
        self._sent_ms_min = (now - SENDING_EARLY_MAX) // 1000
        self._sent_ms = 0
        self._newest: tuple[int, int] | None = None
        self.pass_time(moment)

    def pass_time(self, moment: int) -> None:
        """Say what time it is by a clock that is never set, microseconds. Call it before receive() and before tick()."""
        if self._sent_ms:
            self._newest = (self._sent_ms * 1000, self.moment)
            self._sent_ms = 0
        self.moment = moment
        self._sent_ms_max = (self.steady_now + SENDING_LATE_MAX) // 1000

    @property
    def steady_now(self) -> int:
        """Our clock at the connection's opening and what passed since then, microseconds."""
        return self._started + self.moment

    def take_newest(self) -> tuple[int, int] | None:
        """Return the newest sending time, and the moment it came; None when none came since the last call."""
        newest, self._newest = self._newest, None
        return newest

    @property
    def book_sid(self) -> Sid | None:
        """The order-book subscription; None before the exchange gave it its number."""
        return next((sid for sid in self.sids.values() if sid.is_book), None)

    def _is_sending_time(self, sending_ts_ms: int | None) -> bool:
        """True when an envelope's time, milliseconds, can be one of a frame that comes now."""
        return sending_ts_ms is not None and self._sent_ms_min <= sending_ts_ms <= self._sent_ms_max

    def _at(self, sending_ts_ms: int | None) -> int:
        """Time of a frame: its sending time, else (and if that is none) when it came, with the larger margins."""
        if sending_ts_ms is None or not self._is_sending_time(sending_ts_ms):
            self.margin.unsent()
            return self.steady_now
        return sending_ts_ms * 1000

    def _judge(self, sid: Sid, seq: int | None, at: int, data: bytes, now: int) -> bool:
        """Judge a frame's number; a gap or a silence restarts the sid. False: it counts nothing and was rejected."""
        if seq is None:
            self._keep(data, now, "no seq", sid, None)
            return False
        step = sid.sequence.judge(seq)
        if step is Step.OLD:
            self._keep(data, now, "repeated seq", sid, seq)
            self._old(sid, seq, at, now)
            return False
        if step is Step.GAP:
            self._gap(sid, seq, at, now)
            return True
        if self._is_silent(sid):
            self.write_gap(sid, "silent", None, at, now)
            sid.restart_reason = "silent"
        elif sid.restart_reason is not None:
            self.write_gap(sid, sid.restart_reason, None, at, now)
        if sid.restart_reason is not None:
            sid.restart(seq, at, sid.restart_reason, now)
        return True

    def _old(self, sid: Sid, seq: int, at: int, now: int) -> None:
        """Count a frame whose number was there already; a run of nothing else means that the numbers began anew.

        Raises:
            NumbersReused: so many of them, or for so long; the gap is written.
        """
        if not sid.olds:
            sid.old_since = self.moment
        sid.olds += 1
        if sid.olds < OLD_MAX and self.moment - sid.old_since <= OLD_FOR_MAX:
            return
        last = sid.sequence.last
        self.write_gap(
            sid, "seq", None, at, now, detail=f"{sid.olds} old numbers, at last {seq} after {last}"
        )
        raise NumbersReused(f"sid {sid.sid} is at {seq} again after {last}")

    def _is_silent(self, sid: Sid) -> bool:
        """True when data of a sid that we count ourselves stayed away so long that it may have been lost.

        Its numbers cannot show a loss, so only data proves that it is heard: answers to commands do not count here.
        """
        return bool(sid.counts_own) and self.moment - sid.data_at > self.settings.silence

    def _gap(self, sid: Sid, seq: int, at: int, now: int) -> None:
        self.noted["gap"] += 1
        last = sid.sequence
        self.write_gap(sid, "seq", None, at, now, last.last + 1, seq - 1)
        sid.restart(seq, at, "seq", now)
        if sid.is_book:
            self.markets.lost(self.markets.acked, self.moment)

    def _count(self, sid: Sid, seq: int, at: int) -> None:
        sid.sequence.count(seq, at)
        sid.heard_at = sid.data_at = self.moment
        sid.olds = 0

    def write_gap(
        self,
        sid: Sid,
        reason: str,
        ticker: str | None,
        at: int,
        now: int,
        seq_from: int | None = None,
        seq_to: int | None = None,
        detail: str = "",
        from_ts: int | None = None,
    ) -> None:
        """Write down what a sid missed from its last frame (or from_ts) to `at`, exchange time."""
        row = gap(
            now, sid.channel, reason, slot=self.slot, detail=detail, ticker=ticker,
            from_ts=sid.sequence.sent_at if from_ts is None else from_ts, to_ts=at, received_to=now,
            received_from=now - (self.moment - sid.heard_at),
            seq_from=seq_from, seq_to=seq_to, connection=self.connection, sid=sid.sid,
        )  # fmt: skip
        self.outlets.gap(row, now)

    def _keep(self, data: bytes, now: int, reason: str, sid: Sid | None, seq: int | None) -> None:
        """Store a frame that counts nothing."""
        self.noted["rejected"] += 1
        envelope = wire.decode_envelope(data)
        sending = envelope.sending_ts_ms if envelope else None
        if not self._is_sending_time(sending):
            sending = None
        ticker = wire.ticker_of(data)
        row = RejectedFrameRow(
            now, 0, False, reason, data, self.connection, sid.sid if sid else None, seq,
            None if sending is None else sending * 1000, ticker,
        )  # fmt: skip
        self.outlets.reject(row)
