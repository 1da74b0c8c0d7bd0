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
from libs.flow.placement import CHANNELS
from libs.marketdata.sequence import START_MARGIN, START_MARGIN_UNSENT
from libs.marketdata.units import SECOND
from services.connector.answers import Answers
from services.connector.judge import FAMILY_OF_KIND, SessionSettings
from services.connector.outlets import Outlets
from services.connector.probes import is_mute
from services.connector.sids import Sid

RENEWALS_MAX = 100
"""Books of one connection that are asked for at once because rows of it were lost: so that all connections have their turn."""


class Session(Answers):
    """See the module. One per websocket; `connection` is a UUIDv7 made for it.

    Attributes:
        frames: number of frames received.
        received_at: our clock at the last frame, microseconds; 0 before the first.
        exported: the part of `noted` that the shell has carried over to metrics.
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
        self.frames = 0
        self.received_at = 0
        self.exported: Counter[str] = Counter()
        self._started_at = now
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
            Silent: a subscription is gone, but not so that it could be begun anew, or for the second time in a minute.
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
            if sent is not None:
                if self._sent_ms_min <= sent <= self._sent_ms_max:
                    self._sent_ms = sent
                else:
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
        self._asking.check()
        if self.kind == "orderbook":
            self._update_markets(now)
        else:
            self._to_send += self._asking.channels()
        for sid in self.sids.values():
            self._probes.check(sid, self.moment)
            if self._is_quiet(sid):
                self._to_send += self._probes.ask(sid, self.moment)
            if sid.is_book:
                for row in sid.cuts_over(now):
                    self._add_cut(row)
                    self._rest.touch(now)

    def _is_quiet(self, sid: Sid) -> bool:
        """True when a sid is to be asked for a frame.

        One without seq is asked only after its silence has ended what it claims: the answer shows that it lives, no more.
        """
        is_due = self.moment - max(sid.heard_at, sid.probed_at) >= self.settings.probe
        return is_due and (not sid.counts_own or self._is_silent(sid))

    def _update_markets(self, now: int) -> None:
        """Send what intent asks for; from a delete on, its markets prove nothing more."""
        book, before = self.book_sid, self.markets.pending
        renewals = self._renewals(book) if book else 0
        self._to_send += self.markets.next(self.moment, book.sid if book else None, renewals)
        pending = self.markets.pending
        if pending is not before and pending is not None and pending.kind == "delete" and book:
            for ticker in pending.tickers:
                book.disclaim(ticker, "deleted", now)
        if new := self.markets.turned_away(self.moment):
            self._asking.refused(book, new, "no room", now)

    def _renewals(self, book: Sid) -> int:
        """Return how many books may be renewed now: of a sid of which rows were lost all are to be, in their turn."""
        if book.is_missing:
            book.is_missing = False
            self.noted["renewed"] += 1
            self.markets.requests.renew(sorted(self.markets.acked))
        most = min(self.markets.requests.renewals, RENEWALS_MAX)
        return self.outlets.renewals.take(self.moment / SECOND, most) if most else 0

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
        if not all(is_mute(sid, self.moment) for sid in behind):
            for sid in behind:
                if self.moment - max(sid.heard_at, sid.probed_at) >= SECOND:
                    self._to_send += self._probes.ask(sid, self.moment)
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
    def seen_count(self) -> int:
        """Markets whose first snapshot is in; a whole channel is seen with its answer."""
        if self.kind == "orderbook":
            return len(self.markets.seen & self.markets.wanted)
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
