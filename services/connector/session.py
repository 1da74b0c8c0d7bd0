"""One connection of one slot without its socket: frames and time in; rows, proofs and commands out.

Every frame is judged by its sid's sequence before anything else (judge.py). Its message then becomes rows (frames.py),
which go straight into the process's batchers, so that all rows of a frame stand in one batch. Commands follow from
intent and answers (here and in markets.py). The session never waits and never reads a clock.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from libs.exchange import commands, wire
from libs.exchange.errors import SubscriptionRejected, Undecodable
from libs.marketdata.listening import ORDERBOOK_CHANNEL
from libs.marketdata.rows import gap
from libs.marketdata.sequence import START_MARGIN, START_MARGIN_UNSENT
from libs.marketdata.units import SECOND
from services.connector.errors import NumbersReused, Silent, Unanswered
from services.connector.frames import Frames
from services.connector.judge import CHANNELS, FAMILY_OF_KIND, SENDING_OFF_MAX, SessionSettings
from services.connector.markets import Pending
from services.connector.outlets import Outlets
from services.connector.sids import Sid

TERMINAL = frozenset({10, 17, 25})
"""Errors that end the sid they name, unless they answer the command that waits: subscribe again.

17 was retired in September 2026; the specification of August has it, and an exchange may bring it back."""
UNKNOWN_SID = 7
LATER = frozenset({17, 18, 27})
"""Errors of a command that may be sent again a little later."""
PROBE_ANSWERS = frozenset({13, 14})
"""Errors that answer get_snapshot on a sid without books: they take a number, which is all a probe wants."""
MARKET_LIMIT = 26
RETRY_AFTER = 1 * SECOND
NOT_FOUND = 16
REFUSALS_MAX = 3
"""Refusals of a command that cannot be made smaller, in a row: the exchange changed, or our configuration is wrong."""
FIRSTS_MAX = 20
"""The same for single markets while there is no subscription yet: so many bad ones do not stand side by side in a list."""
MUTE_AFTER = 60 * SECOND
"""A whole channel that answers no probe of a hand-over for so long is not waited for any longer, microseconds.

Twice the longest wait for any answer, so that the exchange has shown that it does not answer this question with a number.
Two owners are free, but not for ever; what is given up is the proof of silence between this sid's last frame and the
successor's start: at worst a gap, written down, never a claim too much."""
PROBES_APART_MAX = 30 * SECOND
"""Probes further apart than this (the database was away, the hand-over was taken back) do not add up, microseconds."""


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
        self._asked_at: int | None = None
        self._asked_id: int | None = None
        self._asked_channels: frozenset[str] = frozenset()
        self._probes: dict[int, int] = {}
        self._refusals = 0
        self._firsts = 0
        self._end_reason = "unsubscribed"
        self._used: set[int] = set()
        self._to_send: list[bytes] = []
        self._touch = outlets.batchers[FAMILY_OF_KIND[self.kind]].touch
        self._handlers: dict[type, Callable[[Any, bytes, int], None]] = {
            wire.OrderbookDelta: self._delta,
            wire.OrderbookSnapshot: self._snapshot,
            wire.Trade: self._trade,
            wire.Ticker: self._ticker,
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
        pending = self.markets.pending
        asked_at = pending.asked_at if pending else self._asked_at
        if asked_at is not None and now - asked_at > self.settings.answer:
            raise Unanswered(f"no answer to {'subscribe' if pending is None else pending.kind}")
        if self.kind == "orderbook":
            self._update_markets(now)
        elif self._asked_at is None:
            self._subscribe_channels(now)
        for sid in self.sids.values():
            is_owed = sid.owed_at > max(sid.heard_at, sid.answered_at)
            if is_owed and now - sid.owed_at > self.settings.answer:
                raise Silent(f"{sid.channel} answers no probe")
            if self._is_quiet(sid, now):
                self._probe(sid, now)
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
        book, before = self._book_sid(), self.markets.pending
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
        if not all(_is_mute(sid, now) for sid in behind):
            for sid in behind:
                if now - max(sid.heard_at, sid.probed_at) >= SECOND:
                    self._probe(sid, now)
            return False
        for sid in behind:
            self.noted["mute"] += 1
            self.write_gap(
                sid, "silent", None, until, now, detail="handed over without an answer to probes"
            )
        return True

    def _probe(self, sid: Sid, now: int) -> None:
        """Ask for a frame: the book of a market, or of none on a whole channel, whose refusal takes a number too.

        An order-book sid without a market claims nothing and keeps nobody waiting, so it needs no proof and is left
        alone: a made-up market would show no more, and an exchange that does not answer it would be reconnected to for
        ever. That such a sid died shows when the next market is added, for that command must be answered.
        """
        if not sid.is_book:
            command_id = self.ids.next()
            command: bytes | None = commands.get_snapshot(command_id, sid.sid, ["PROBE"])
        else:
            command = self.markets.probe(sid.sid)
            command_id = self.markets.probe_id
        if command is None:
            return
        if sid.asked_at <= sid.heard_at or now - sid.probed_at > PROBES_APART_MAX:
            sid.asked_at = now
        if sid.owed_at <= max(sid.heard_at, sid.answered_at):
            sid.owed_at = now
            self._forget_probes(sid)
        sid.probed_at = now
        self._probes[command_id] = sid.sid
        self._to_send.append(command)

    def _forget_probes(self, sid: Sid) -> None:
        self._probes = {
            probe: number for probe, number in self._probes.items() if number != sid.sid
        }

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
        self._forget_probes(sid)
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
        book, markets = self._book_sid(), self.markets
        heard = (markets.wanted & markets.seen & markets.acked) if book else ()
        if book is not None and not all(map(book.claims, heard)):
            return None
        unsent = self.margin.base != START_MARGIN or not self.sids
        start = max((sid.opened_at for sid in self.sids.values()), default=0) or self._started_at
        return start + (START_MARGIN_UNSENT if unsent else START_MARGIN)

    # --- answers ---

    def _subscribe_channels(self, now: int) -> None:
        held = {sid.channel for sid in self.sids.values()}
        channels = [name for name in CHANNELS[self.kind] if name not in held]
        if channels:
            self._asked_at, self._asked_id = now, self.ids.next()
            self._asked_channels = frozenset(channels)
            self._to_send.append(commands.subscribe(self._asked_id, channels))

    def _book_sid(self) -> Sid | None:
        return next((sid for sid in self.sids.values() if sid.is_book), None)

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
        self._refusals = 0
        if sid.is_book:
            self.markets.answered(message.id, now)
        else:
            self._asked_channels -= {channel}
            if not self._asked_channels:
                self._asked_at = None

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
        done = self.markets.answered(message.id, now)
        if done is not None:
            self._refusals = 0
        if done is not None and done.kind == "delete":
            self._give_back(sid or self._book_sid(), done)

    def _give_back(self, sid: Sid | None, done: Pending) -> None:
        """Forget the streams of a delete: it is done, or failed and the next snapshot begins them anew."""
        for ticker in done.tickers if sid is not None else ():
            assert sid is not None
            sid.forget_stream(ticker)

    def _unsubscribed(self, message: wire.Unsubscribed, data: bytes, now: int) -> None:
        self.answers += 1
        sid = self._control(message, data, now)
        if sid is not None:
            self._end(sid, self._end_reason, now)

    def _error(self, message: wire.Error, data: bytes, now: int) -> None:
        self.answers += 1
        sid = self._control(message, data, now)
        code, text = message.msg.code, message.msg.msg
        probed = self.sids.get(self._probes.pop(message.id or 0, -1))
        waits = self._waits_for(message.id)
        if code == UNKNOWN_SID and (probed is not None or (waits and self.sids)):
            raise Silent(f"the exchange does not know the sid: {text}")
        if probed is not None:
            probed.answered_at = now
        if code in TERMINAL and not waits and (sid is not None or message.id is None):
            self._died(sid, code, text, now)
        elif probed is None and not (code in PROBE_ANSWERS and (sid is None or not sid.is_book)):
            self._failed(sid, message, now)

    def _waits_for(self, command_id: int | None) -> bool:
        """True when this is the command that waits for its answer."""
        pending = self.markets.pending
        waiting = pending.command_id if pending else self._asked_id if self._asked_at else None
        return command_id is not None and command_id == waiting

    def _failed(self, sid: Sid | None, message: wire.Error, now: int) -> None:
        """Take the failure of a command: send it again later, in smaller parts, or give its markets up.

        Raises:
            SubscriptionRejected: nothing smaller is left to ask for.
        """
        code, text = message.msg.code, message.msg.msg
        self.noted["refused"] += 1
        new: list[str] = []
        if code == MARKET_LIMIT:
            failed = self.markets.failed(message.id, retry_at=None)
            new = list(failed.tickers) if failed is not None else []
        elif code in LATER:
            failed = self.markets.failed(message.id, retry_at=now + RETRY_AFTER)
        else:
            failed, new = self._declined(message, now)
        if new:
            self._refused(sid, new, text, now)
        if failed is not None:
            self._take_back(failed, now)
        elif self._asked_at is not None:
            self._asked_at = None
            self._refusals += code not in LATER
        if self._refusals >= REFUSALS_MAX:
            raise SubscriptionRejected(code, text)

    def _declined(self, message: wire.Error, now: int) -> tuple[Pending | None, list[str]]:
        """Take a refusal; while there is no subscription it may be the slot's own, not one market's."""
        code, text = message.msg.code, message.msg.msg
        found = self.markets.decline(
            message.id, message.msg.market_ticker, now, retry_at=now + RETRY_AFTER
        )
        if found is None:
            return None, []
        declined, new = found
        if declined.kind == "delete":
            self._refusals += 1
        elif declined.kind == "subscribe" and new and code != NOT_FOUND:
            self._firsts += 1
            if self._firsts >= FIRSTS_MAX or not self.markets.is_untried:
                raise SubscriptionRejected(code, text)
        return declined, new

    def _take_back(self, failed: Pending, now: int) -> None:
        """What a failed command may have done in part proves nothing."""
        book = self._book_sid()
        if failed.kind == "delete":
            self._give_back(book, failed)
            self.markets.refresh(failed.tickers)
        elif book is not None:
            for ticker in failed.tickers:
                book.disclaim(ticker, "refused", now)

    def _refused(self, sid: Sid | None, tickers: list[str], text: str, now: int) -> None:
        """Write down that markets are not captured because the exchange does not take them."""
        what = repr(tickers[0]) if len(tickers) == 1 else f"{len(tickers)} markets"
        row = gap(
            now, ORDERBOOK_CHANNEL, "not_subscribed", slot=self.slot,
            detail=f"{what}: {text}", ticker=tickers[0] if len(tickers) == 1 else None,
            from_ts=now, received_from=now, connection=self.connection, sid=sid.sid if sid else None,
        )  # fmt: skip
        self.outlets.gap(row, now)

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
        self._asked_at = None


def _is_mute(sid: Sid, now: int) -> bool:
    """True when a whole channel has left a run of probes without an answer for too long."""
    is_asked = sid.asked_at > sid.heard_at and now - sid.probed_at <= PROBES_APART_MAX
    return not sid.is_book and is_asked and now - sid.asked_at >= MUTE_AFTER
