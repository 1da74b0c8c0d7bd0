"""One gatherer's connector over the simulator's own frames, with spans cut out of what it hears; nothing waits.

Sessions of the exchange and of the connector are the real ones, also outlets, batches and buffers; between them stands
whatever a cut does. Beside it a journal of what reached which stream: an oracle that counts nothing as a session does.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from libs.flow.batch import Limits
from libs.marketdata.tables import Family
from libs.marketdata.units import MILLISECOND, SECOND
from libs.store.batches import SealedBatch
from services.connector.buffer import Buffer
from services.connector.judge import SessionSettings
from services.connector.outlets import Outlets
from services.connector.session import Session
from services.simulator.chance import Chance
from services.simulator.exchange import Exchange
from services.simulator.line import Line
from services.simulator.session import Session as ExchangeSession
from tests.simulation.published import Truth, listings

HEAD = TAIL = 4 * SECOND
LIMITS = dict.fromkeys(Family, Limits(10_000, 1 << 30, 3_600 * SECOND))
KINDS = ("lost", "reconnect", "add_markets", "hand_over", "rejected", "dropped")
"""lost: frames without a trace but their numbers. reconnect: closed and dialled again. add_markets: one market given back
and added again. hand_over: another connection beside, then the first is closed. rejected: values that do not fit.
dropped: a buffer without room."""


class Cut(NamedTuple):
    """A span [start, end) of places in the truth, and what befalls it; ticker: the market given back."""

    kind: str
    start: int
    end: int
    ticker: str = ""


class Stream(NamedTuple):
    """One market on one connection from a break to the next."""

    connection: int
    ticker: str
    part: int


@dataclass(slots=True)
class Told:
    """A delta that reached a stream. stored: its batch found room."""

    stream: Stream
    index: int
    stored: bool = True


@dataclass(slots=True)
class Heard:
    """What a gatherer committed and the oracle's journal of it.

    batches: by family in the order of commits. told: in order. blows: when each cut began and ended. start, end: of the
    life of its connections; microseconds of exchange time.
    """

    batches: dict[Family, list[SealedBatch]] = field(default_factory=lambda: defaultdict(list))
    told: list[Told] = field(default_factory=list)
    blows: list[tuple[int, int]] = field(default_factory=list)
    start: int = 0
    end: int = 0


class _Wire:
    """One connection: the exchange's end and ours, and the breaks of its streams."""

    def __init__(self, number: int, line: Line, session: Session) -> None:
        self.number, self.line, self.session = number, line, session
        self.breaks: dict[str, int] = defaultdict(int)
        self.all_breaks = 0

    def stream(self, ticker: str) -> Stream:
        return Stream(self.number, ticker, self.breaks[ticker] + self.all_breaks)


class _Connector:
    def __init__(self, zone: int, truth: Truth, lag: int, batch: int, chunk: int) -> None:
        self.heard = Heard()
        self.now = truth[0].sent + lag - HEAD
        self._began = self._next_tick = self.now
        self._zone, self._truth, self._lag, self._batch = zone, truth, lag, batch
        self._settings = SessionSettings(probe=SECOND, chunk=chunk)
        self._exchange = Exchange(trades_kept=1)
        for listing in listings():
            self._exchange.list_market(listing)
        self._tickers = sorted({delta.ticker for delta in truth})
        self._outlets = Outlets(LIMITS, 1 << 30)
        self._buffers = {family: Buffer(family, 1 << 30) for family in Family}
        self._wires: list[_Wire] = []
        self._count = 0
        self._unwritten: list[Told] = []
        self._befalls = ""

    def run(self, cuts: Iterable[Cut]) -> Heard:
        at: dict[int, list[tuple[Callable[[Cut], None], Cut]]] = defaultdict(list)
        for cut in cuts:
            at[cut.start].append((self._begin, cut))
            at[cut.end].append((self._end, cut))
        self._dial()
        self.heard.start = self.now
        self._flush()
        for index in range(len(self._truth) + 1):
            for step, cut in at[index]:
                step(cut)
            if index < len(self._truth):
                self._publish(index)
            if index % self._batch == 0:
                self._flush()
        self._pass(self.now + TAIL)
        self.heard.end = self.now
        while self._wires:
            self._hang_up(self._wires[0], "drained")
        self._flush()
        self._flush(is_last=True)
        return self.heard

    # --- cuts ---

    def _begin(self, cut: Cut) -> None:
        self.heard.blows.append((self.now, self.now))
        if cut.kind == "reconnect":
            self._hang_up(self._wires[0], "disconnected")
        elif cut.kind == "add_markets":
            self._want([ticker for ticker in self._tickers if ticker != cut.ticker])
            self._wires[0].breaks[cut.ticker] += 1
        elif cut.kind == "hand_over":
            self._dial()
        elif cut.kind == "dropped":
            self._flush()
            self._buffers[Family.DELTAS].rows_max = 0
        else:
            self._befalls = cut.kind

    def _end(self, cut: Cut) -> None:
        if cut.kind == "reconnect":
            self._dial()
        elif cut.kind == "add_markets":
            self._want(self._tickers)
        elif cut.kind == "hand_over":
            self._hang_up(self._wires[0], "handed over")
        elif cut.kind == "dropped":
            self._flush()
            self._buffers[Family.DELTAS].rows_max = 1 << 30
        else:
            self._befalls = ""
        self.heard.blows[-1] = (self.heard.blows[-1][0], self.now)

    def _want(self, tickers: Sequence[str]) -> None:
        self._wires[0].session.want(tickers)
        self._talk(self._wires[0])

    # --- connections ---

    def _dial(self) -> None:
        self._count += 1
        number, now_ms = self._zone * 1000 + self._count, self.now // MILLISECOND
        theirs = ExchangeSession(number, self._exchange, lambda _: None)
        theirs.set_time(now_ms)
        self._exchange.sessions[number] = theirs
        line = Line(theirs, "key", "", now_ms, 3_600_000, Chance(number), 1 << 20)
        ours = Session(
            "orderbook/0", UUID(int=number), self._outlets, self._settings, self.now, self._moment
        )
        ours.want(self._tickers)
        wire = _Wire(number, line, ours)
        self._wires.append(wire)
        self._talk(wire)

    def _hang_up(self, wire: _Wire, reason: str) -> None:
        wire.session.close(reason, self.now)
        self._wires.remove(wire)
        del self._exchange.sessions[wire.number]
        wire.line.session.close(self.now // MILLISECOND)

    def _talk(self, wire: _Wire) -> None:
        """Let our end do what time asks for, and the exchange answer at once."""
        wire.session.pass_time(self._moment)
        wire.session.tick(self.now)
        while commands := wire.session.take_commands():
            for command in commands:
                wire.line.receive(command, self.now // MILLISECOND)
            for frame in self._take(wire):
                wire.session.receive(frame, self.now)
            wire.session.tick(self.now)

    def _take(self, wire: _Wire) -> list[bytes]:
        return [a for a in wire.line.take(self.now // MILLISECOND) if isinstance(a, bytes)]

    @property
    def _moment(self) -> int:
        return self.now - self._began

    def _pass(self, until: int) -> None:
        """Let time pass; every second each connection asks for a frame."""
        while self._next_tick <= until:
            self.now = max(self.now, self._next_tick)
            for wire in self._wires:
                self._talk(wire)
            self._next_tick += SECOND
        self.now = max(self.now, until)

    # --- what is heard ---

    def _publish(self, index: int) -> None:
        delta = self._truth[index]
        self._pass(delta.sent + self._lag)
        self._exchange.publish([delta.change(index + 1)], self.now // MILLISECOND)
        for wire in self._wires:
            for frame in self._take(wire):
                self._deliver(wire, frame, index)

    def _deliver(self, wire: _Wire, frame: bytes, index: int) -> None:
        ticker = self._truth[index].ticker
        if self._befalls == "lost":
            wire.all_breaks += 1
            return
        wire.session.pass_time(self._moment)
        if self._befalls == "rejected":
            wire.breaks[ticker] += 1
            frame = frame.replace(b'"price_dollars":"0.', b'"price_dollars":"9.')
        else:
            told = Told(wire.stream(ticker), index, stored=False)
            self.heard.told.append(told)
            self._unwritten.append(told)
        wire.session.receive(frame, self.now)

    # --- what is committed ---

    def _flush(self, *, is_last: bool = False) -> None:
        for family, batcher in self._outlets.batchers.items():
            buffer, batch = self._buffers[family], batcher.cut(self.now)
            taken = buffer.taken
            for gap in buffer.put(batch, self.now) if batch is not None else ():
                self._outlets.gap(gap, self.now)
            if family is Family.DELTAS:
                for told in self._unwritten:
                    told.stored = buffer.taken > taken
                self._unwritten = []
            # One batch stays behind: a buffer that holds nothing takes whatever comes.
            while len(buffer) > (0 if is_last else 1):
                record = buffer.peek()
                assert record is not None
                self.heard.batches[family].append(record.sealed)
                buffer.commit()


def hear(
    zone: int, truth: Truth, cuts: Iterable[Cut], *, lag: int = 0, batch: int = 3, chunk: int = 100
) -> Heard:
    """Let a gatherer hear the truth with these cuts, which do not overlap.

    Args:
        lag: how much later than others this gatherer is sent everything, microseconds. batch: a commit every so many
            deltas. chunk: markets in one command.
    """
    return _Connector(zone, truth, lag, batch, chunk).run(cuts)
