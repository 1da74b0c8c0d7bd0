"""One sid of one connection: its numbers, its streams, and the rows that prove what it heard.

Closings name the last frame before the one that revealed the end, openings the frame they begin with; both are written
while a frame of this sid is being received, so they stand in the batch that holds that frame. If that batch is lost,
the range breaks there too, and nothing is claimed too much.
"""

from collections.abc import Iterator
from uuid import UUID

from libs.flow.batch import Alive, Closing, Notes, SidKey
from libs.marketdata.listening import ORDERBOOK_CHANNEL
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow, SnapshotCutRow
from libs.marketdata.sequence import START_MARGIN, START_MARGIN_UNSENT, Margin, Sequence
from libs.marketdata.streams import Cut, Stream
from libs.marketdata.tables import Family

FAMILIES = {
    ORDERBOOK_CHANNEL: Family.DELTAS,
    "ticker": Family.TICKERS,
    "trade": Family.TRADES,
    "market_lifecycle_v2": Family.REST,
    "multivariate_market_lifecycle": Family.REST,
}
"""The family whose batches carry a channel's ranges: that of its rows."""
OWN_NUMBERS = frozenset({"ticker"})
"""Channels whose frames never carry seq."""
_NEVER = 2**63 - 1


class Sid:
    """A subscription of one channel as the server numbers it. A batch's Source.

    Attributes:
        is_book: an order-book sid: one stream per market; else the channel is the only stream.
        counts_own: frames are counted by our own number; None until the first data frame tells.
        epoch: raised whenever all streams begin anew.
        heard_at, probed_at: when the last frame came, and when one was last asked for; these and all others that say when
            in our time are moments of the connection's clock that is never set.
        data_at: when the last frame came that was no answer to a command (order books do not need it).
        asked_at: when the first of the probes without an answer went out; before heard_at: there is none.
        owed_at: when the first probe went out that nothing of the sid, and no answer by its id, came after.
        answered_at: when a probe was last answered by its id, with or without a number of the sid.
        olds, old_since: frames with old numbers since the last that counted, and when the first of them came.
        restart_reason: set when all streams must begin anew with the next frame.
        opened_at: exchange time of the newest opening: everything claimed now was heard from then on, if a stream goes on.
        begun_at: exchange time of the answer that began it.
        waiting: streams with snapshots that wait for their cut.
        is_missing: rows of it were lost on their way to the database; its books are to be asked for.
    """

    def __init__(
        self,
        connection: UUID,
        sid: int,
        channel: str,
        slot: str,
        margin: Margin,
        at: int,
        now: int,
        moment: int,
    ) -> None:
        self.connection = connection
        self.sid = sid
        self.channel = channel
        self.slot = slot
        self.margin = margin
        self.sequence = Sequence(at)
        self.is_book = channel == ORDERBOOK_CHANNEL
        self.counts_own = False if self.is_book else True if channel in OWN_NUMBERS else None
        self.epoch = 0
        self.streams: dict[str | None, Stream] = {}
        self.heard_at = moment
        self.data_at = moment
        self.probed_at = moment
        self.asked_at = 0
        self.owed_at = 0
        self.answered_at = moment
        self.olds = 0
        self.old_since = 0
        self.restart_reason: str | None = None
        self.opened_at = 0
        self.begun_at = at
        self.waiting: dict[str, Stream] = {}
        self.is_missing = False
        self._ended = False
        self._numbers = 0
        self._opened: list[ListenOpenedRow] = []
        self._closed: list[Closing] = []
        self._leaving: list[Closing] = []
        if not self.is_book:
            self.open_stream(None, 0, at, now)

    @property
    def key(self) -> SidKey:
        return self.connection, self.sid

    @property
    def family(self) -> Family:
        return FAMILIES[self.channel]

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def heard_until(self) -> int:
        """Exchange time up to which everything of this sid was heard, microseconds."""
        return self.sequence.sent_at - self.margin.value

    @property
    def claims_anything(self) -> bool:
        """True when some stream goes on that claims to listen."""
        return any(stream.claimed for stream in self.streams.values())

    def claims(self, ticker: str) -> bool:
        """True when a market's stream goes on and claims to listen."""
        stream = self.streams.get(ticker)
        return stream is not None and stream.claimed

    def number(self, seq: int | None) -> int | None:
        """Return the number of a frame: its seq, or our own where the channel has none."""
        return self.sequence.last + 1 if self.counts_own else seq

    # --- streams: all of these before sequence.count() of the frame ---

    def open_stream(
        self, ticker: str | None, seq: int, at: int, now: int, *, claimed: bool = True
    ) -> Stream:
        """Begin a stream with the frame `seq`; an unclaimed one is counted but proves nothing."""
        self._numbers += 1
        stream = self.streams[ticker] = Stream(self._numbers, self.epoch, seq, claimed)
        if claimed:
            self._opened.append(self._opening(ticker, stream.number, seq, at, now))
        return stream

    def end_stream(self, ticker: str | None, reason: str, now: int) -> None:
        """End a stream after the last counted frame; nothing happens when there is none."""
        stream = self.forget_stream(ticker)
        if stream is not None and stream.claimed:
            last, last_at = self.sequence.last, self.sequence.sent_at
            self._close(ticker, stream.number, last, last_at, reason, now, stream.opened_seq)

    def disclaim(self, ticker: str, reason: str, now: int) -> None:
        """End what a stream proves with the last frame, though its deltas may still come and are still numbered.

        The closing is handed over with the next frames, so that it cannot be lost without a hole behind it.
        """
        stream = self.streams.get(ticker)
        if stream is not None and stream.claimed:
            stream.claimed = False
            last, last_at = self.sequence.last, self.sequence.sent_at
            row = self._closing(ticker, stream.number, last, last_at, reason, now)
            self._leaving.append(Closing(row, stream.opened_seq))

    def forget_stream(self, ticker: str | None) -> Stream | None:
        """Drop a stream without a row."""
        if ticker is not None:
            self.waiting.pop(ticker, None)
        return self.streams.pop(ticker, None)

    def restart(self, seq: int, at: int, reason: str, now: int) -> None:
        """End all streams after the last counted frame and begin them anew with the frame `seq`."""
        self.epoch += 1
        self.restart_reason = None
        self.waiting.clear()
        if not self.is_book:
            self.end_stream(None, reason, now)
            self.open_stream(None, seq, at, now)
            return
        last, last_at = self.sequence.last, self.sequence.sent_at
        self._close(None, 0, last, last_at, reason, now, _NEVER)
        self._opened.append(self._opening(None, 0, seq, at, now))

    def take_back(self, reason: str, now: int) -> None:
        """Claim nothing of a whole channel, also what was claimed already: each of its streams ended where the sid began."""
        for number in range(1, self._numbers + 1):
            self._close(None, number, 0, self.begun_at, reason, now, _NEVER)

    def end(self, reason: str, now: int) -> None:
        """End the sid with the last counted frame: no frame follows."""
        if self._ended:
            return
        self._ended = True
        if self.is_book:
            last, last_at = self.sequence.last, self.sequence.sent_at
            self._close(None, 0, last, last_at, reason, now, _NEVER)
        else:
            stream = self.streams[None]
            self._close(
                None, stream.number, self.sequence.last, self.sequence.sent_at, reason, now, _NEVER
            )

    def _close(
        self,
        ticker: str | None,
        number: int,
        seq: int,
        at: int,
        reason: str,
        now: int,
        opened_seq: int,
    ) -> None:
        row = self._closing(ticker, number, seq, at, reason, now)
        self._closed.append(Closing(row, opened_seq))

    def _closing(
        self, ticker: str | None, number: int, seq: int, at: int, reason: str, now: int
    ) -> ListenClosedRow:
        return ListenClosedRow(
            now, seq, at, number, self.sid, 0, self.connection, self.channel, reason, ticker
        )

    def _opening(
        self, ticker: str | None, number: int, seq: int, at: int, now: int
    ) -> ListenOpenedRow:
        margin = START_MARGIN if self.margin.base == START_MARGIN else START_MARGIN_UNSENT
        self.opened_at = max(self.opened_at, at)
        return ListenOpenedRow(
            now,
            seq,
            at,
            margin,
            number,
            self.sid,
            0,
            self.connection,
            self.channel,
            self.slot,
            ticker,
        )

    # --- cuts of snapshots ---

    def cut_row(self, ticker: str, cut: Cut, now: int) -> SnapshotCutRow:
        """Build the row that completes a snapshot's cut."""
        return SnapshotCutRow(
            cut.exchange_ts, now, cut.seq, cut.deltas, self.sid, 0, self.connection, ticker
        )

    def cuts_over(self, now: int) -> Iterator[SnapshotCutRow]:
        """Yield the cuts whose millisecond is over because everything up to it was heard."""
        until = self.heard_until
        for ticker, stream in list(self.waiting.items()):
            for cut in stream.pass_time(until):
                yield self.cut_row(ticker, cut, now)
            if stream.waiting is None:
                del self.waiting[ticker]

    # --- what batches ask ---

    def drain(self, now: int) -> Notes | None:
        """Hand over ranges, openings and closings since the last call."""
        runs = self.sequence.drain()
        if self._leaving and (runs or self._ended):
            self._closed += self._leaving
            self._leaving = []
        if not (runs or self._opened or self._closed):
            return None
        margin = self.margin.value
        ranges = [
            ListenRangeRow(
                now,
                run.seq_from,
                run.seq_to,
                run.sent_from,
                run.sent_to,
                margin,
                self.sid,
                0,
                self.connection,
                self.channel,
            )
            for run in runs
        ]
        opened, self._opened = self._opened, []
        closed, self._closed = self._closed, []
        return Notes(ranges, opened, closed)

    def alive(self) -> Iterator[Alive]:
        """The streams without a closing of their own."""
        for ticker, stream in self.streams.items():
            if stream.claimed:
                yield Alive(ticker, stream.number, stream.opened_seq)

    def reopening(self, alive: Alive, seq: int, sent_at: int, now: int) -> ListenOpenedRow:
        """Build the row that restates an opening."""
        return self._opening(alive.ticker, alive.stream, seq, sent_at, now)

    def missed(self) -> None:
        """Note that rows of it were lost on their way to the database."""
        self.is_missing = True
