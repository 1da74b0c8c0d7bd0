"""Frames whose content is lost: kept as bytes, numbered where they tell their number, and costing no more than they must.

A frame that names its sid and number costs its market's stream, or its sid's where it names no market; one that does not
may have been any sid's. What is not a frame of ours costs nothing.
"""

from libs.exchange import wire
from libs.marketdata.sequence import Step
from services.connector.judge import Judge
from services.connector.sids import Sid


class Rejects(Judge):
    """What becomes of frames that cannot be read, or say what their sid cannot say."""

    def _stray(self, data: bytes, now: int, number: int, seq: int | None) -> None:
        """A data frame on a sid that is unknown or another channel's: of the latter something may be lost."""
        sid = self.sids.get(number)
        if sid is None:
            self._keep(data, now, "unknown sid", None, seq)
        else:
            self._reject(sid, seq, None, data, now, "message of another channel", None)

    def _misfit(
        self,
        sid: Sid,
        message: wire.OrderbookDelta
        | wire.OrderbookSnapshot
        | wire.Trade
        | wire.Ticker
        | wire.LifecycleMessage,
        ticker: str | None,
        data: bytes,
        now: int,
        reason: str,
    ) -> None:
        self._reject(sid, message.seq, message.sending_ts_ms, data, now, reason, ticker)

    def _undecodable(self, data: bytes, now: int, reason: str) -> None:
        envelope = wire.decode_envelope(data)
        sid = self.sids.get(envelope.sid) if envelope and envelope.sid is not None else None
        if envelope is None or sid is None:
            self._keep(data, now, reason, None, envelope.seq if envelope else None)
            # It may have been any sid's. Those with seq will show it by a jump, the others never would.
            for other in self.sids.values():
                if other.counts_own is not False:
                    other.restart_reason = other.restart_reason or "rejected"
            return
        ticker = wire.ticker_of(data)
        self._reject(sid, envelope.seq, envelope.sending_ts_ms, data, now, reason, ticker)

    def _reject(
        self,
        sid: Sid,
        seq: int | None,
        sending: int | None,
        data: bytes,
        now: int,
        reason: str,
        ticker: str | None,
    ) -> None:
        """Store a frame of a known sid whose content is lost; its number counts, and its stream ends before it."""
        number = sid.number(seq)
        at = self._at(sending)
        if number is None or sid.sequence.judge(number) is Step.OLD:
            self._keep(data, now, reason, sid, number)
            if number is None:
                sid.restart_reason = "rejected"
            else:
                self._old(sid, number, at, now)
            return
        self._judge(sid, number, at, data, now)
        self._keep(data, now, reason, sid, number)
        if (
            sid.is_book
            and ticker is not None
            and (ticker in sid.streams or ticker in self.markets.held)
        ):
            self.write_gap(sid, "rejected", ticker, at, now, number, number, reason)
            sid.end_stream(ticker, "rejected", now)
            self.markets.unreadable(ticker, self.moment)
        else:
            self.write_gap(sid, "rejected", None, at, now, number, number, reason)
            sid.restart(number, at, "rejected", now)
            if sid.is_book:
                self.markets.lost(self.markets.acked, self.moment)
        self._count(sid, number, at)
