"""One connection of one slot without its socket: frames and time in; rows, proofs and commands out.

Every frame is judged by its sid's sequence before anything else (judge.py). Its message then becomes rows (frames.py),
which go straight into the process's batchers, so that all rows of a frame stand in one batch. Commands follow from
intent and answers (markets.py, asking.py) and from silence (probes.py). The session never waits and never reads a clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from libs.exchange import commands, wire
from libs.exchange.errors import Undecodable
from libs.marketdata.sequence import START_MARGIN, START_MARGIN_UNSENT
from libs.marketdata.units import SECOND
from services.connector.asking import Asking
from services.connector.errors import NumbersReused, Silent
from services.connector.frames import Frames
from services.connector.judge import CHANNELS, FAMILY_OF_KIND, SENDING_OFF_MAX, SessionSettings
from services.connector.outlets import Outlets
from services.connector.probes import Probes, is_mute
from services.connector.sids import Sid

TERMINAL = frozenset({10, 17, 25})
"""Errors that end the sid they name, unless they answer the command that waits: subscribe again.

17 was retired in September 2026; the specification of August has it, and an exchange may bring it back."""
UNKNOWN_SID = 7
PROBE_ANSWERS = frozenset({13, 14})
"""Errors that answer get_snapshot on a sid without books: they take a number, which is all a probe wants."""


class Session(Frames):
    """See the module. One per websocket; `connection` is a UUIDv7 made for it.

    Attributes:
        frames: number of frames received.
        received_at: our clock at the last frame, microseconds; 0 before the first.
        last_sent_at: time of the last frame of the sids that have ended; 0 while there are none.
        answers: number of answers to commands; the shell ticks when it grows.
        exported: the part of `noted` that the shell has carried over to metrics.
    """

    def __init__(
        self, slot: str, connection: UUID, outlets: Outlets, settings: SessionSettings, now: int
    ) -> None:
        super().__init__(slot, connection, outlets, settings)
        self.frames = 0
        self.received_at = 0
        self.last_sent_at = 0
        self.answers = 0
        self.exported: Counter[str] = Counter()
        self._started_at = now
        self._asking = Asking(self)
        self._probes = Probes(self.markets, self.ids, settings.answer)
        self._end_reason = "unsubscribed"
        self._used: set[int] = set()
        self._to_send: list[bytes] = []
        self._touch = outlets.batchers[FAMILY_OF_KIND[self.kind]].touch
        self._handlers: dict[type, Callable[[Any, bytes, int], None]] = {
            wire.OrderbookDelta: self._delta,
            wire.OrderbookSnapshot: self._snapshot,
            wire.Trade: self._fact,
            wire.Ticker: self._fact,
            wire.MarketLifecycle: self._lifecycle,
            wire.MultivariateLifecycle: self._lifecycle,
            wire.EventLifecycle: self._lifecycle,
            wire.EventFeeUpdate: self._lifecycle,
            wire.Subscribed: self._subscribed,
            wire.Unsubscribed: self._unsubscribed,
            wire.Ok: self._ok,
            wire.Error: self._error,
        }

    # --- what the shell calls ---

    def want(self, tickers: Iterable[str]) -> None:
        """Replace the markets of an order-book slot; whole-channel slots have none."""
        self.markets.want(tickers)

    def receive(self, data: bytes, received_at: int) -> None:
        """Take one frame.

        Raises:
            CrossedBook: a first snapshot is crossed; close the connection, do not hurry back.
            Silent: the exchange says that a subscription is gone, but not so that it could be begun anew.
            NumbersReused: what comes next cannot be told from what came before; reconnect.
            SubscriptionRejected: the exchange refused the subscription several times; reconnect later.
        """
        self.frames += 1
        self.received_at = received_at
        try:
            message = wire.decode_message(data)
        except Undecodable as error:
            self._undecodable(data, received_at, error.reason)
        else:
            sent = message.sending_ts_ms
            if sent is not None and abs(sent * 1000 - received_at) > SENDING_OFF_MAX:
                self.noted["sending time"] += 1
                message.sending_ts_ms = None
            self._handlers[type(message)](message, data, received_at)
        self._touch(received_at)

    def tick(self, now: int) -> None:
        """Do what time asks for: commands, probes, cuts of quiet markets. Call it about once a second, and after want().

        Raises:
            Unanswered: a command had no answer in time; close the connection.
            Silent: a sid answers no probe: it is dead though the socket lives; close the connection.
        """
        self._asking.check(now)
        if self.kind == "orderbook":
            self._update_markets(now)
        else:
            self._to_send += self._asking.channels(now)
        for sid in self.sids.values():
            self._probes.check(sid, now)
            if self._is_quiet(sid, now):
                self._to_send += self._probes.ask(sid, now)
            if sid.is_book:
                for row in sid.cuts_over(now):
                    self._add_cut(row)
                    self._rest.touch(now)

    def _is_quiet(self, sid: Sid, now: int) -> bool:
        """True when a sid is to be asked for a frame.

        One without seq is asked only after its silence has ended what it claims: the answer shows that it lives, no more.
        """
        is_due = now - max(sid.heard_at, sid.probed_at) >= self.settings.probe
        return is_due and (not sid.counts_own or self._is_silent(sid, now))

    def _update_markets(self, now: int) -> None:
        """Send what intent asks for; from a delete on, its markets prove nothing more."""
        book, before = self.book_sid, self.markets.pending
        self._to_send += self.markets.next(now, book.sid if book else None)
        pending = self.markets.pending
        if pending is not before and pending is not None and pending.kind == "delete" and book:
            for ticker in pending.tickers:
                book.disclaim(ticker, "deleted", now)

    def release(self, until: int, now: int) -> bool:
        """Take a step of the hand-over to a successor that hears everything from `until` on, exchange time.

        Call it again until it says yes: then every sid that claims anything has heard everything up to there, or is a
        whole channel that cannot be brought to say so; for that one the gap is written. Until then every sid that was
        silent for a second is asked for a frame: the answer takes a number and shows losses. An order-book sid is
        waited for: its answer is a book, which the exchange always gives while a market of ours is there.

        Returns:
            True when the connection may be closed.
        """
        behind = [s for s in self.sids.values() if s.claims_anything and s.heard_until < until]
        if not all(is_mute(sid, now) for sid in behind):
            for sid in behind:
                if now - max(sid.heard_at, sid.probed_at) >= SECOND:
                    self._to_send += self._probes.ask(sid, now)
            return False
        for sid in behind:
            self.noted["mute"] += 1
            self.write_gap(
                sid, "silent", None, until, now, detail="handed over without an answer to probes"
            )
        return True

    def unsubscribe(self, reason: str = "unsubscribed") -> None:
        """Ask the exchange to end all subscriptions; their closings bear the reason, whoever says first that they ended."""
        self._end_reason = reason
        if self.sids:
            self._to_send.append(commands.unsubscribe(self.ids.next(), list(self.sids)))

    def close(self, reason: str, now: int) -> None:
        """End all streams with the last frame received; no frame may follow."""
        for sid in list(self.sids.values()):
            self._end(sid, reason, now)

    def _end(self, sid: Sid, reason: str, now: int) -> None:
        sid.end(reason, now)
        self.last_sent_at = max(self.last_sent_at, sid.sequence.sent_at)
        self.outlets.batchers[sid.family].touch(now)
        self._probes.forget(sid)
        del self.sids[sid.sid]

    def take_commands(self) -> list[bytes]:
        """Return the commands to send, in order, and forget them."""
        taken, self._to_send = self._to_send, []
        return taken

    # --- what the shell asks ---

    @property
    def wanted_count(self) -> int:
        return len(self.markets.wanted) if self.kind == "orderbook" else len(CHANNELS[self.kind])

    @property
    def acked_count(self) -> int:
        if self.kind == "orderbook":
            return len(self.markets.acked & self.markets.wanted)
        return len(self.sids)

    @property
    def is_complete(self) -> bool:
        """True when everything wanted is subscribed and every market's first snapshot is in."""
        if self.kind == "orderbook":
            return self.markets.is_complete and self.markets.pending is None
        return self.acked_count == len(CHANNELS[self.kind])

    @property
    def listening_from(self) -> int | None:
        """Exchange time from which this connection hears everything of its slot; None until is_complete.

        It rises with every opening, so also after a gap, a rejected frame or a time that went back; and it is None while
        something that was heard is not: the streams that were ended begin anew only with a later frame.
        """
        if not self.is_complete or any(s.restart_reason for s in self.sids.values()):
            return None
        book, markets = self.book_sid, self.markets
        heard = (markets.wanted & markets.seen & markets.acked) if book else ()
        if book is not None and not all(map(book.claims, heard)):
            return None
        unsent = self.margin.base != START_MARGIN or not self.sids
        start = max((sid.opened_at for sid in self.sids.values()), default=0) or self._started_at
        return start + (START_MARGIN_UNSENT if unsent else START_MARGIN)

    # --- answers ---

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
        at = self._at(message.sending_ts_ms, now)
        sid = Sid(self.connection, number, channel, self.slot, self.margin, at, now)
        self.sids[number] = sid
        self.outlets.batchers[sid.family].attach(sid)
        self._asking.subscribed(sid, message.id, now)

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
        if number is not None and not self._is_silent(sid, now):
            at, data_at = self._at(message.sending_ts_ms, now), sid.data_at
            if self._judge(sid, number, at, data, now):
                self._count(sid, number, at, now)
                sid.data_at = data_at
        return sid

    def _ok(self, message: wire.Ok, data: bytes, now: int) -> None:
        self.answers += 1
        sid = self._control(message, data, now)
        self._asking.done(sid, message.id, now)

    def _unsubscribed(self, message: wire.Unsubscribed, data: bytes, now: int) -> None:
        self.answers += 1
        sid = self._control(message, data, now)
        if sid is not None:
            self._end(sid, self._end_reason, now)

    def _error(self, message: wire.Error, data: bytes, now: int) -> None:
        self.answers += 1
        sid = self._control(message, data, now)
        code, text = message.msg.code, message.msg.msg
        probed = self.sids.get(self._probes.take(message.id))
        waits = self._asking.waits_for(message.id)
        if code == UNKNOWN_SID and (probed is not None or (waits and self.sids)):
            raise Silent(f"the exchange does not know the sid: {text}")
        if probed is not None:
            probed.answered_at = now
        if code in TERMINAL and not waits and (sid is not None or message.id is None):
            self._died(sid, code, text, now)
        elif probed is None and not (code in PROBE_ANSWERS and (sid is None or not sid.is_book)):
            self._asking.failed(sid, message, now)

    def _died(self, sid: Sid | None, code: int, text: str, now: int) -> None:
        """A subscription ended by itself: close it and subscribe again.

        Raises:
            Silent: the error does not say which of several.
        """
        if sid is None:
            if len(self.sids) != 1:
                raise Silent(f"error {code} ended a subscription, but not which: {text}")
            (sid,) = self.sids.values()
        at = sid.sequence.sent_at
        self.write_gap(sid, "disconnected", None, at, now, detail=f"error {code}: {text}")
        self._end(sid, f"error {code}", now)
        self.noted["died"] += 1
        if sid.is_book:
            self.markets.forget()
        self._asking.forget()
