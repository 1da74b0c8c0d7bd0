"""What the exchange answers to commands, and what it says of subscriptions: begun, ended, failed, dead.

An answer that names a sid takes a number of its sequence, so it is judged like any frame before it means anything.
"""

from uuid import UUID

from libs.exchange import wire
from libs.flow.placement import CHANNELS
from libs.marketdata.rows import GapRow, gap
from libs.marketdata.units import SECOND
from services.connector.asking import Asking
from services.connector.errors import NumbersReused, Silent
from services.connector.frames import Frames
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.probes import Probes
from services.connector.sids import Sid

TERMINAL = frozenset({10, 17, 25})
"""Errors that end the sid they name, unless they answer the command that waits: subscribe again.

17 was retired in September 2026; the specification of August has it, and an exchange may bring it back."""
DIED_APART = 60 * SECOND
"""A subscription that ends by itself twice within this time, microseconds, is not begun a third time on its connection: what
it dies of is still there, and only a connection is opened again after longer and longer pauses."""
UNKNOWN_SID = 7
PROBE_ANSWERS = frozenset({13, 14})
"""Errors that answer get_snapshot on a sid without books: they take a number, which is all a probe wants."""


class Answers(Frames):
    """What becomes of each kind of answer.

    Attributes:
        last_sent_at: time of the last frame of the sids that have ended; 0 while there are none.
        lost: what was written of the first subscription that ended by itself; the shell writes the end of that gap, and
            forgets it, when everything is heard again.
        answers: number of answers to commands; the shell ticks when it grows.
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
        super().__init__(slot, connection, outlets, settings, now, moment)
        self.last_sent_at = 0
        self.lost: GapRow | None = None
        self.answers = 0
        self._asking = Asking(self)
        self._probes = Probes(self.markets, self.ids, settings.answer)
        self._end_reason: str | None = None
        self._died_at: dict[str, int] = {}
        self._used: set[int] = set()

    def _subscribed(self, message: wire.Subscribed, data: bytes, now: int) -> None:
        self.answers += 1
        channel, number = message.msg.channel, message.msg.sid
        if channel not in CHANNELS[self.kind] or number in self.sids:
            self._keep(data, now, f"subscribed to {channel[:40]!r}", None, None)
            return
        if number in self._used:
            # Ranges join by (connection, sid): two subscriptions under one name would claim the time between them.
            raise NumbersReused(f"sid {number} was given to {channel} again")
        self._used.add(number)
        at = self._at(message.sending_ts_ms)
        sid = Sid(self.connection, number, channel, self.slot, self.margin, at, now, self.moment)
        self.sids[number] = sid
        self.outlets.batchers[sid.family].attach(sid)
        self._asking.subscribed(sid, message.id)

    def _control(
        self, message: wire.Ok | wire.Error | wire.Unsubscribed, data: bytes, now: int
    ) -> Sid | None:
        """Count an answer that carries a sid's number; return the sid.

        On a sid without seq it takes our own number, but bridges no silence: after one only data counts again.
        """
        sid = self.sids.get(message.sid) if message.sid is not None else None
        if sid is None:
            return None
        number = sid.number(message.seq)
        if number is not None and not self._is_silent(sid):
            at, data_at = self._at(message.sending_ts_ms), sid.data_at
            if self._judge(sid, number, at, data, now):
                self._count(sid, number, at)
                sid.data_at = data_at
        return sid

    def _ok(self, message: wire.Ok, data: bytes, now: int) -> None:
        self.answers += 1
        sid = self._control(message, data, now)
        self._asking.done(sid, message.id)

    def _unsubscribed(self, message: wire.Unsubscribed, data: bytes, now: int) -> None:
        self.answers += 1
        sid = self._control(message, data, now)
        if sid is None:
            return
        if self._end_reason is None:
            self._died(sid, "unsubscribed unasked", now)
        else:
            self._end(sid, self._end_reason, now)

    def _error(self, message: wire.Error, data: bytes, now: int) -> None:
        self.answers += 1
        code, text = message.msg.code, message.msg.msg
        sid = self.sids.get(message.sid) if message.sid is not None else None
        if sid is None or not sid.counts_own or code not in TERMINAL:
            # Our own numbers do not show what was thrown away before the end: there only data proves what was heard.
            self._control(message, data, now)
        probed = self.sids.get(self._probes.take(message.id))
        waits = self._asking.waits_for(message.id)
        if code == UNKNOWN_SID and (probed is not None or (waits and self.sids)):
            raise Silent(f"the exchange does not know the sid: {text}")
        if probed is not None:
            probed.answered_at = self.moment
        if code in TERMINAL and not waits and (sid is not None or message.id is None):
            if sid is None:
                if len(self.sids) != 1:
                    raise Silent(f"error {code} ended a subscription, but not which: {text}")
                (sid,) = self.sids.values()
            self._died(sid, f"error {code}", now, text)
        elif probed is None and not (code in PROBE_ANSWERS and (sid is None or not sid.is_book)):
            self._asking.failed(sid, message, now)

    def _died(self, sid: Sid, reason: str, now: int, text: str = "") -> None:
        """A subscription ended by itself: close it and subscribe again.

        Raises:
            Silent: it did so a moment ago.
        """
        row = gap(
            now, sid.channel, "disconnected", slot=self.slot, detail=f"{reason}: {text}" if text else reason,
            from_ts=sid.sequence.sent_at, received_from=now, connection=self.connection, sid=sid.sid,
        )  # fmt: skip
        self.outlets.gap(row, now)
        self.lost = self.lost or row
        self.was_complete = False
        self._end(sid, reason, now)
        self.noted["died"] += 1
        if sid.is_book:
            self.markets.forget()
        self._asking.forget()
        before, self._died_at[sid.channel] = self._died_at.get(sid.channel), self.moment
        if before is not None and self.moment - before < DIED_APART:
            raise Silent(f"{sid.channel} ended again: {row.detail}")

    def _end(self, sid: Sid, reason: str, now: int) -> None:
        sid.end(reason, now)
        self.last_sent_at = max(self.last_sent_at, sid.sequence.sent_at)
        self.outlets.batchers[sid.family].touch(now)
        self._probes.forget(sid)
        del self.sids[sid.sid]
