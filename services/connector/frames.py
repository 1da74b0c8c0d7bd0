"""Data frames to rows: deltas and snapshots of markets, and the messages of whole channels.

Values are converted first, because a value that does not fit rejects the frame; then the number is judged, then the
stream counts, then the row goes out, and only then the frame counts. Closings therefore always name the frame before.
"""

from uuid import UUID

from libs.exchange import convert, wire
from libs.marketdata.rows import DeltaRow, TickerRow, TradeRow, gap
from libs.marketdata.streams import Stream
from libs.marketdata.tables import Family
from libs.marketdata.units import ValueDoesNotFit
from services.connector.errors import CrossedBook, NumbersReused
from services.connector.judge import FAMILY_OF_KIND, SessionSettings
from services.connector.outlets import Outlets
from services.connector.rejects import Rejects
from services.connector.sids import OWN_NUMBERS, Sid

_NEVER_BACK = 2**63 - 1


class Frames(Rejects):
    """What becomes of each kind of data frame.

    Attributes:
        was_complete: set by the shell once everything wanted was heard; what comes later was not_subscribed before.
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
        trades, tickers = outlets.batchers[Family.TRADES], outlets.batchers[Family.TICKERS]
        rest = outlets.batchers[Family.REST]
        self._add_delta = outlets.batchers[Family.DELTAS].table("orderbook_deltas").append
        self._add_trade = trades.table("trades").append
        self._add_ticker = tickers.table("tickers").append
        self._add_snapshot = rest.table("orderbook_snapshots").append
        self._add_cut = rest.table("snapshot_cuts").append
        self._add_lifecycle = rest.table("market_lifecycle").append
        self._rest = rest
        # The registry subscribes new markets by these rows: they wait no longer than trades do.
        self._lifecycle_age = trades.limits.age
        self._wants = settings.wants
        self.was_complete = False

    # --- order books ---

    def _delta(self, message: wire.OrderbookDelta, data: bytes, now: int) -> None:
        sid = self.sids.get(message.sid)
        if sid is None or not sid.is_book:
            self._stray(data, now, message.sid, message.seq)
            return
        try:
            ticker, exchange_ts, side, price, size_delta = convert.delta_values(
                message, self.settings.use_yes_price
            )
        except ValueDoesNotFit as error:
            self._misfit(sid, message, message.msg.market_ticker, data, now, str(error))
            return
        sent = message.sending_ts_ms
        at = sent * 1000 if sent is not None else self._at(None)
        seq, sequence = message.seq, sid.sequence
        is_plain = seq == sequence.last + 1 and sid.restart_reason is None
        if not is_plain and not self._judge(sid, seq, at, data, now):
            return
        margin = self.margin
        if at - exchange_ts > margin.lag_max:
            self._lag(at - exchange_ts)
        stream = sid.streams.get(ticker)
        if stream is None or stream.epoch != sid.epoch or exchange_ts < stream.exchange_ts:
            stream = self._stream(sid, ticker, exchange_ts, seq, at, now)
        occurrence = stream.count(exchange_ts, (side, price, size_delta))
        if stream.waiting is not None:
            self._follow(sid, ticker, stream, exchange_ts, now)
        self._add_delta(
            DeltaRow(
                exchange_ts, now, size_delta, seq, price, occurrence, message.sid, side,
                self.connection, ticker, at if sent is not None else None,
                stream.deltas if stream.whole else None,
            )
        )  # fmt: skip
        sequence.count(seq, at)
        sid.heard_at = self.moment
        sid.olds = 0

    def _stream(
        self, sid: Sid, ticker: str, exchange_ts: int, seq: int, at: int, now: int
    ) -> Stream:
        """Return the market's stream for this frame: a new one, or the old one begun anew after a gap."""
        stream = sid.streams.get(ticker)
        if stream is not None and stream.epoch != sid.epoch:
            stream.begin(sid.epoch)
        if stream is not None and stream.goes_back(exchange_ts):
            self.noted["regression"] += 1
            sid.end_stream(ticker, "time went back", now)
            stream = None
        if stream is None:
            claimed = self.markets.is_held(ticker)
            stream = sid.open_stream(ticker, seq, at, now, claimed=claimed)
        return stream

    def _lag(self, lag: int) -> None:
        if lag > self.margin.value:
            self.noted["late"] += 1
        self.margin.observe(lag)

    def _follow(self, sid: Sid, ticker: str, stream: Stream, exchange_ts: int, now: int) -> None:
        for cut in stream.follow(exchange_ts):
            self._add_cut(sid.cut_row(ticker, cut, now))
            self._rest.touch(now)
        if stream.waiting is None:
            sid.waiting.pop(ticker, None)

    def _snapshot(self, message: wire.OrderbookSnapshot, data: bytes, now: int) -> None:
        sid = self.sids.get(message.sid)
        if sid is None or not sid.is_book:
            self._stray(data, now, message.sid, message.seq)
            return
        ticker = message.msg.market_ticker
        try:
            row = convert.snapshot_row(
                message, now, self.connection, self.settings.use_yes_price,
                is_first=False, cut_exchange_ts=None, cut_pos=None,
            )  # fmt: skip
        except ValueDoesNotFit as error:
            self._misfit(sid, message, ticker, data, now, str(error))
            return
        at = self._at(message.sending_ts_ms)
        if not self._judge(sid, message.seq, at, data, now):
            # Overtaken by a later frame it counts nothing; if it was waited for, it has to come once more.
            self.markets.doubt([ticker], self.moment)
            return
        known = sid.streams.get(ticker)
        if known is not None and not known.claimed and self.markets.is_held(ticker):
            sid.forget_stream(ticker)
        stream = self._stream(sid, ticker, _NEVER_BACK, message.seq, at, now)
        is_first = stream.snapshots == 0
        if is_first and convert.is_crossed(row.yes or (), row.no or ()):
            raise CrossedBook(f"{CrossedBook.__doc__} ({ticker}, seq {message.seq})")
        cut = stream.snapshot(message.seq)
        if cut is None:
            sid.waiting[ticker] = stream
            self._add_snapshot(row._replace(is_first=is_first))
        else:
            self._add_snapshot(
                row._replace(is_first=is_first, cut_exchange_ts=cut[0], cut_pos=cut[1])
            )
        rest = self.outlets.batchers[Family.REST]
        rest.grow(len(data))
        rest.touch(now)
        if stream.claimed:
            if ticker not in self.markets.seen:
                self._first_seen(sid, ticker, at, now)
            self.markets.see(ticker)
        self._count(sid, message.seq, at)

    def _first_seen(self, sid: Sid, ticker: str, at: int, now: int) -> None:
        """Note a market's first snapshot; one that came to a slot already heard was not listened to before."""
        if self.was_complete:
            row = gap(
                now, sid.channel, "not_subscribed", slot=self.slot, detail="until its first snapshot",
                ticker=ticker, to_ts=at, received_to=now, connection=self.connection, sid=sid.sid,
            )  # fmt: skip
            self.outlets.gap(row, now)

    # --- whole channels ---

    def _fact(self, message: wire.Trade | wire.Ticker, data: bytes, now: int) -> None:
        """Take a trade or a ticker; a branch tells them apart, so that these frequent frames cost no further call."""
        is_trade = isinstance(message, wire.Trade)
        found = self._channel_frame(message, data, now, "trade" if is_trade else "ticker")
        if found is not None:
            sid, seq, at = found
            try:
                row: TradeRow | TickerRow = (
                    convert.trade_row(message, now, self.connection)
                    if isinstance(message, wire.Trade)
                    else convert.ticker_row(message, now, self.connection, seq)
                )
            except ValueDoesNotFit as error:
                self._misfit(sid, message, message.msg.market_ticker, data, now, str(error))
                return
            if self._judge(sid, seq, at, data, now):
                self._lag(at - row.exchange_ts)
                if self._wants is None or self._wants(row.ticker):
                    (self._add_trade if is_trade else self._add_ticker)(row)
                self._count(sid, seq, at)

    def _lifecycle(self, message: wire.LifecycleMessage, data: bytes, now: int) -> None:
        found = self._channel_frame(message, data, now, "")
        if found is not None:
            sid, seq, at = found
            try:
                row = convert.lifecycle_row(message, now, self.connection, seq)
            except ValueDoesNotFit as error:
                self._misfit(sid, message, None, data, now, str(error))
                return
            if self._judge(sid, seq, at, data, now):
                self._add_lifecycle(row)
                self._rest.hurry(now, self._lifecycle_age)
                self._count(sid, seq, at)

    def _channel_frame(
        self,
        message: wire.Trade | wire.Ticker | wire.LifecycleMessage,
        data: bytes,
        now: int,
        channel: str,
    ) -> tuple[Sid, int, int] | None:
        """Find the sid, number and time of a whole channel's data frame; None: it was rejected."""
        sid = self.sids.get(message.sid)
        if (
            sid is None
            or sid.family is not FAMILY_OF_KIND[self.kind]
            or channel not in ("", sid.channel)
        ):
            self._stray(data, now, message.sid, message.seq)
            return None
        if sid.counts_own is None:
            sid.counts_own = message.seq is None
        elif sid.counts_own and message.seq is not None and sid.channel not in OWN_NUMBERS:
            self._numbered_after_all(sid, message.seq, data, now)
        at = self._at(message.sending_ts_ms)
        seq = sid.number(message.seq)
        if seq is None:
            self._keep(data, now, "no seq", sid, None)
            sid.restart_reason = "rejected"
            return None
        return sid, seq, at

    def _numbered_after_all(self, sid: Sid, seq: int, data: bytes, now: int) -> None:
        """Frames without seq made us count ourselves, and here is one with it: what we counted shows no loss.

        Raises:
            NumbersReused: always; everything claimed of the sid is taken back, and the gap is written.
        """
        self._keep(data, now, "seq where there was none", sid, seq)
        self.write_gap(
            sid,
            "seq",
            None,
            sid.sequence.sent_at,
            now,
            detail="counted as a channel without seq",
            from_ts=sid.begun_at,
        )
        sid.take_back("seq", now)
        raise NumbersReused(f"sid {sid.sid} has numbers after all: {seq}")
