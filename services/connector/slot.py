"""One slot's connection: opened, read, watched, opened again.

Two things happen at once on a connection, reading and the second's tick; the first that ends ends both. A frame is
handed to the session as soon as it is read; nothing here waits for the database, and the reader waits for nothing else.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from libs.exchange.errors import AuthRejected, ExchangeError
from libs.exchange.signing import Signer
from libs.exchange.transport import Connection, TransportSettings, open_connection
from libs.flow.backoff import Backoff
from libs.marketdata.rows import GapRow, gap
from libs.marketdata.tables import Family
from libs.runtime.clock import Clock
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics
from services.connector.connection_id import uuid7
from services.connector.errors import ConnectorError, CrossedBook, Silent
from services.connector.judge import CHANNELS, SessionSettings
from services.connector.outlets import Outlets
from services.connector.pipeline import Pipeline
from services.connector.session import Session

log = get_logger(__name__)

FRAMES_PER_READ_MAX = 512
TICK_S = 1.0
STABLE_S = 60.0
"""Seconds a connection must have lasted for the next failure to be the first again. A minute: one that is dropped every
few seconds is not hurried back to, one an hour is; a longer time would cost more hearing than it spares the exchange."""
GOODBYE_S_MAX = 2.0
"""Seconds to wait for the answer to unsubscribe; it proves the last frames, but nothing depends on it."""


Dial = Callable[
    [str, Signer | None, Clock, TransportSettings], AbstractAsyncContextManager[Connection]
]
"""Opens a websocket; a simulation in virtual time gives its own."""


def _spread(name: str) -> float:
    """Where in [0, 1) a slot's pauses lie: by its name, whose hash differs from process to process."""
    return (hash(name) % 100) / 100


@dataclass(slots=True)
class Wiring:
    """What all slots of a process share. Durations in seconds."""

    url: str
    signer: Callable[[], Signer | None]
    clock: Clock
    metrics: Metrics
    outlets: Outlets
    pipelines: Mapping[Family, Pipeline]
    session: SessionSettings
    transport: TransportSettings
    backoff_s_min: float
    backoff_s_max: float
    silence_s_max: float
    dial: Dial = open_connection
    jitter: Callable[[str], float] = _spread
    """Jitter of a slot's pauses, by its name; a simulation that is to repeat itself gives its own, as of names."""
    new_id: Callable[[], UUID] = uuid4
    """The random part of a connection's name."""
    was_connected: bool = False
    """A connection was open once: a refused key now is the exchange's trouble, not the configuration's."""
    noted: Counter[str] = field(default_factory=Counter)


class _Closed(Exception):
    """The slot was closed by us."""


class Slot:
    """Keeps one connection for one slot until closed.

    Attributes:
        name: `kind/number`. session: of the open connection, None while there is none.
        is_complete: everything that was wanted at first is subscribed and was seen. frames: over all its connections.
        error: why there is no connection; empty while there is one.
    """

    def __init__(self, name: str, wiring: Wiring) -> None:
        self.name = name
        self.session: Session | None = None
        self.is_complete = False
        self.error = "not connected yet"
        self.tickers: frozenset[str] = frozenset()
        self._frames = 0
        self._wiring = wiring
        self._closing: str | None = None
        self._dialling: asyncio.Timeout | None = None
        self._poke = asyncio.Event()
        self._lost: GapRow | None = None
        self._lasted_s = 0.0
        self._backoff = Backoff(
            wiring.backoff_s_min,
            wiring.backoff_s_max,
            lambda: wiring.jitter(name),
            stable_s=STABLE_S,
        )
        kind = name.partition("/")[0]
        self._count_frames = wiring.metrics.ws_frames_received_total.labels(channel=kind)
        self._count_bytes = wiring.metrics.ws_bytes_received_total.labels(channel=kind)

    # --- what the owner asks ---

    @property
    def frames(self) -> int:
        return self._frames + (self.session.frames if self.session else 0)

    def want(self, tickers: Iterable[str]) -> None:
        """Replace the markets of an order-book slot; one that is heard stays so while new markets' books are awaited."""
        self.tickers = frozenset(tickers)
        if self.session is not None:
            self.session.want(self.tickers)
        self._poke.set()

    def release(self, until: int) -> bool:
        """Take a step of the hand-over to a successor that hears everything from `until` on; True: close() it now.

        Without a connection there is nothing more that could be heard.
        """
        if self.session is None:
            return True
        self._poke.set()
        return self.session.release(until, self._wiring.clock.now())

    def close(self, reason: str) -> None:
        """Let run() end: unsubscribe, close the socket, end the streams with this reason; a dial is given up."""
        if self._closing is None:
            self._closing = reason
        self._poke.set()
        if self._dialling is not None:
            self._dialling.reschedule(asyncio.get_running_loop().time())
            self._dialling = None

    # --- the loop ---

    async def run(self) -> None:
        """Keep a connection until close().

        Raises:
            AuthRejected: the key is refused, and no connection of this process was ever open.
        """
        while self._closing is None:
            self._lasted_s = 0.0
            try:
                await self._connect_once()
            except AuthRejected as error:
                if not self._wiring.was_connected:
                    raise
                self._failed(error)
            except (ExchangeError, ConnectorError) as error:
                self._failed(error)
            except TimeoutError:
                # Of the dial that close() gave up; every other one has its own class by now.
                if self._closing is None:
                    raise
            if self._closing is None:
                await self._sleep(self._backoff.next_delay())

    def _failed(self, error: Exception) -> None:
        """Say why there is no connection; books in another orientation are tried again after the longest wait.

        A refused key is not: the exchange refuses good ones in passing, and the clock may have been wrong for a moment.
        """
        needs_person = isinstance(error, CrossedBook | AuthRejected)
        self._backoff.reset_if_stable(self._lasted_s)
        if isinstance(error, CrossedBook):
            self._backoff.exhaust()
        self.error = f"{type(error).__name__}: {error}"
        self._wiring.metrics.ws_reconnects_total.labels(reason=type(error).__name__).inc()
        write = log.error if needs_person else log.warning
        write("connection_lost", slot=self.name, error=type(error).__name__, reason=str(error))

    async def _sleep(self, seconds: float) -> None:
        """Wait; want() and probe() do not shorten it, close() does."""
        clock = self._wiring.clock
        until = clock.monotonic() + seconds
        while self._closing is None and (left := until - clock.monotonic()) > 0:
            await self._poked(left)

    async def _poked(self, seconds: float) -> None:
        await first_of(self._poke, timeout_s=seconds)
        self._poke.clear()

    async def _connect_once(self) -> None:
        """Dial and serve; the time-out has no end of its own and is only there for close()."""
        async with asyncio.timeout(None) as dialling:
            self._dialling = dialling
            try:
                await self._dial_and_serve()
            finally:
                self._dialling = None

    async def _dial_and_serve(self) -> None:
        wiring, clock = self._wiring, self._wiring.clock
        async with wiring.dial(wiring.url, wiring.signer(), clock, wiring.transport) as conn:
            self._dialling = None
            wiring.was_connected = True
            now = clock.now()
            connection = uuid7(now, wiring.new_id())
            session = Session(self.name, connection, wiring.outlets, wiring.session, now)
            session.want(self.tickers)
            self.session, self.is_complete, self.error = session, False, ""
            opened_at = clock.monotonic()
            wiring.metrics.ws_connections.inc()
            try:
                await self._serve(conn, session)
            finally:
                wiring.metrics.ws_connections.dec()
                self._lasted_s = clock.monotonic() - opened_at
                self._ended(session)

    async def _serve(self, conn: Connection, session: Session) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(conn, session), name=f"read-{self.name}")
                tasks.create_task(self._tick(conn, session), name=f"tick-{self.name}")
        except BaseExceptionGroup as group:
            first = _first(group)
            if not isinstance(first, _Closed):
                raise first from first.__cause__

    def _ended(self, session: Session) -> None:
        """End the streams, and remember where hearing stopped until it goes on."""
        now = self._wiring.clock.now()
        reason = self._closing or "disconnected"
        session.close(reason, now)
        self._note(session)
        self._frames += session.frames
        self.session, self.is_complete = None, False
        if self._closing is None and session.last_sent_at:
            self._lost = gap(
                now,
                CHANNELS[session.kind][0],
                "disconnected",
                slot=self.name,
                from_ts=session.last_sent_at,
                received_from=session.received_at,
                connection=session.connection,
            )
            self._wiring.outlets.gap(self._lost, now)

    # --- reading ---

    async def _read(self, conn: Connection, session: Session) -> None:
        wiring, receive, answers = self._wiring, session.receive, session.answers
        pipelines = list(wiring.pipelines.values())
        while True:
            frames = await conn.receive_many(FRAMES_PER_READ_MAX)
            size = 0
            for data, received_at in frames:
                receive(data, received_at)
                size += len(data)
            now = frames[-1].received_at
            for pipeline in pipelines:
                pipeline.pump_full(now)
            self._count_frames.inc(len(frames))
            self._count_bytes.inc(size)
            if session.answers != answers:
                answers = session.answers
                self._poke.set()

    # --- the second's tick ---

    async def _tick(self, conn: Connection, session: Session) -> None:
        while True:
            self._poke.clear()
            session.tick(self._wiring.clock.now())
            if self._closing is not None:
                await self._say_goodbye(conn, session)
            await self._send(conn, session)
            self._watch(conn)
            if not self.is_complete and session.is_complete:
                self._completed(session)
            self._note(session)
            await self._poked(TICK_S)

    async def _send(self, conn: Connection, session: Session) -> None:
        for command in session.take_commands():
            await conn.send(command)

    def _watch(self, conn: Connection) -> None:
        silence = self._wiring.clock.monotonic() - conn.last_heard
        if silence > self._wiring.silence_s_max:
            raise Silent(f"neither a frame nor a ping for {silence:.0f} s")

    def _completed(self, session: Session) -> None:
        self.is_complete = True
        if session.was_complete:
            return
        session.was_complete = True
        lost, now = self._lost, self._wiring.clock.now()
        if lost is not None:
            self._lost = None
            ended = lost._replace(received_at=now, to_ts=session.listening_from, received_to=now)
            self._wiring.outlets.gap(ended, now)
        log.info(
            "slot_heard",
            slot=self.name,
            wanted=session.wanted_count,
            connection=str(session.connection),
        )

    async def _say_goodbye(self, conn: Connection, session: Session) -> None:
        session.unsubscribe(self._closing or "unsubscribed")
        await self._send(conn, session)
        clock = self._wiring.clock
        until = clock.monotonic() + GOODBYE_S_MAX
        while session.sids and (left := until - clock.monotonic()) > 0:
            await self._poked(left)
        raise _Closed

    def _note(self, session: Session) -> None:
        """Carry the session's counts over to metrics."""
        metrics, new = self._wiring.metrics, session.noted - session.exported
        session.exported = Counter(session.noted)
        self._wiring.noted += new
        metrics.ws_sequence_gaps_total.inc(new["gap"])
        metrics.stream_time_regressions_total.inc(new["regression"])
        metrics.margin_exceeded_total.inc(new["late"])
        if new["rejected"]:
            metrics.rejected_frames_total.labels(reason="frame").inc(new["rejected"])
            log.warning("frames_rejected", slot=self.name, frames=new["rejected"])
        if session.received_at:
            metrics.ws_last_frame_timestamp_seconds.set(session.received_at / 1_000_000)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the connection; our own closing only when there is no other."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += [_first(error)] if isinstance(error, BaseExceptionGroup) else [error]
    return next((leaf for leaf in leaves if not isinstance(leaf, _Closed)), leaves[0])
