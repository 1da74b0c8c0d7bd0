"""One connection of a slot, kept: opened, served, opened again. A slot has one such part; one that was split has more.

Durations are told by the monotonic clock alone, so that a wall clock that is set back or forward moves nothing.
"""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Protocol

from libs.exchange.errors import AuthRejected, ConnectionEnded, ExchangeError, RateLimited
from libs.exchange.transport import Connection
from libs.flow.backoff import Backoff
from libs.flow.placement import CHANNELS
from libs.marketdata.rows import GapRow, gap
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.connector.connection_id import uuid7
from services.connector.errors import ConnectorError, CrossedBook, Late
from services.connector.lateness import Lateness, Strictness
from services.connector.serving import Hooks, Serving
from services.connector.session import Session
from services.connector.shares import Share
from services.connector.wiring import Wiring

log = get_logger(__name__)

SPLIT_AGAIN_S = 60.0
"""Seconds until a split that was refused is asked for again."""
TOO_LARGE = 1009
"""Close code: a frame was larger than one of the two sides takes."""
_LONG = (CrossedBook, RateLimited)
"""After these the pause grows to limited_s_max: coming back soon would mend nothing, or is what was refused."""


class Owner(Protocol):
    """What a part needs of its slot."""

    def split(self, part: "Part", cause: str, *, keeps: bool) -> bool: ...

    def handed_on(self, part: "Part", heir: "Part") -> None: ...


class Part:
    """Keeps one connection until closed.

    Args of the constructor: the slot's name; its own number in it; the share of the slot's markets that are its own.

    Attributes:
        share: as above; heirs: other parts that are to take over the rest of what this one still hears, each its own share.
        session: of the open connection, None while there is none.
        is_complete: everything that was wanted at first is subscribed and was seen.
        error: why there is no connection; empty while there is one.
        lost: what was written when not everything was heard any more; the row with the end of that gap follows.
    """

    def __init__(self, slot: str, number: int, share: Share, wiring: Wiring, owner: Owner) -> None:
        self.slot = slot
        self.name = f"{slot}+{number}" if number else slot
        self.share = share
        self.heirs: list[Part] = []
        self.session: Session | None = None
        self.is_complete = False
        self.error = "not connected yet"
        self.tickers: frozenset[str] = frozenset()
        self.lost: GapRow | None = None
        self._lateness: Lateness | None = None
        self._frames = 0
        self._wiring = wiring
        self._owner = owner
        self._closing: str | None = None
        self._dialling: asyncio.Timeout | None = None
        self._poke = asyncio.Event()
        self._lasted_s = 0.0
        self._strictness = Strictness(wiring.late_s_max, wiring.late_for_s)
        self._split_asked_s: float | None = None
        self._failure: Exception | None = None
        self._backoff = Backoff(
            wiring.backoff_s_min,
            max(wiring.backoff_s_max, wiring.limited_s_max or 0.0),
            lambda: wiring.jitter(self.name),
            stable_s=wiring.stable_s,
        )

    # --- what the slot asks ---

    @property
    def frames(self) -> int:
        """Over all its connections."""
        return self._frames + (self.session.frames if self.session else 0)

    @property
    def late(self) -> int:
        """By how much later than at its best the open connection's frames come, microseconds."""
        return self._lateness.late if self._lateness is not None else 0

    def want(self, tickers: Iterable[str]) -> None:
        """Replace the markets; one that is heard stays so while new markets' books are awaited."""
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
        self.session.pass_time(self._wiring.moment())
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
                is_long = isinstance(self._failure, _LONG)
                at_most_s = None if is_long else self._wiring.backoff_s_max
                await self._sleep(self._backoff.next_delay(at_most_s))

    def _failed(self, error: Exception) -> None:
        """Say why there is no connection; books in another orientation are tried again after the longest wait.

        A refused key is not: the exchange refuses good ones in passing, and the clock may have been wrong for a moment.
        """
        self._failure = error
        needs_person = isinstance(error, CrossedBook | AuthRejected)
        self._backoff.reset_if_stable(self._lasted_s)
        if isinstance(error, CrossedBook):
            self._backoff.exhaust()
        self._strictness.ended(was_late=isinstance(error, Late), lasted_s=self._lasted_s)
        self.error = f"{type(error).__name__}: {error}"
        self._wiring.metrics.ws_reconnects_total.labels(reason=type(error).__name__).inc()
        write = log.error if needs_person else log.warning
        write("connection_lost", slot=self.name, error=type(error).__name__, reason=str(error))
        if isinstance(error, ConnectionEnded) and error.code == TOO_LARGE:
            self._owner.split(self, "frame too large", keeps=False)

    async def _sleep(self, seconds: float) -> None:
        """Wait; want() and release() do not shorten it, close() does."""
        clock = self._wiring.clock
        until = clock.monotonic() + seconds
        while self._closing is None and (left := until - clock.monotonic()) > 0:
            await first_of(self._poke, timeout_s=left)
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
        wiring = self._wiring
        async with AsyncExitStack() as stack:
            async with wiring.dials:
                dial = wiring.dial(wiring.url, wiring.signer(), wiring.clock, wiring.transport)
                conn = await stack.enter_async_context(dial)
            self._dialling = None
            wiring.was_connected = True
            await self._serve(conn)

    async def _serve(self, conn: Connection) -> None:
        wiring, clock = self._wiring, self._wiring.clock
        serving, session = self._begin(conn)
        opened_s, why = clock.monotonic(), ""
        wiring.metrics.ws_connections.inc()
        try:
            await serving.run()
        except (ExchangeError, ConnectorError) as error:
            why = f"{type(error).__name__}: {error}"
            raise
        finally:
            wiring.metrics.ws_connections.dec()
            self._lasted_s = clock.monotonic() - opened_s
            self._ended(session, why)
            serving.note()

    def _begin(self, conn: Connection) -> tuple[Serving, Session]:
        wiring, now = self._wiring, self._wiring.clock.now()
        connection = uuid7(now, wiring.new_id())
        moment = wiring.moment()
        session = Session(self.slot, connection, wiring.outlets, wiring.session, now, moment)
        session.want(self.tickers)
        self.session, self.is_complete, self.error = session, False, ""
        self._lateness = self._strictness.judge()
        hooks = Hooks(lambda: self._closing, self._hand_on, self._complete, self._full)
        serving = Serving(self.name, conn, session, self._lateness, wiring, self._poke, hooks)
        return serving, session

    def _ended(self, session: Session, why: str) -> None:
        """End the streams, and remember where hearing stopped until it goes on."""
        now = self._wiring.clock.now()
        session.close(self._closing or "disconnected", now)
        self._frames += session.frames
        self.session, self.is_complete, self._lateness = None, False, None
        for heir in [heir for heir in self.heirs if heir.is_complete]:
            # What would have been heard here is lost either way.
            self._owner.handed_on(self, heir)
        if self._closing is None and session.last_sent_at:
            row = gap(
                now, CHANNELS[session.kind][0], "disconnected", slot=self.slot, detail=why, from_ts=session.last_sent_at,
                received_from=session.received_at, connection=session.connection,
            )  # fmt: skip
            self._wiring.outlets.gap(row, now)
            # What a connection before this one had lost was not heard completely since.
            self.lost = self.lost or session.lost or row

    # --- what serving tells ---

    def _complete(self, session: Session) -> None:
        self.is_complete = True
        if session.was_complete:
            return
        session.was_complete = True
        now = self._wiring.clock.now()
        for lost in filter(None, (self.lost, session.lost)):
            ended = lost._replace(received_at=now, to_ts=session.listening_from, received_to=now)
            self._wiring.outlets.gap(ended, now)
        self.lost = session.lost = None
        log.info(
            "slot_heard",
            slot=self.name,
            wanted=session.wanted_count,
            connection=str(session.connection),
        )

    def _hand_on(self, session: Session) -> None:
        """Give each heir its markets as soon as everything up to its start was heard here: so no gap is between.

        One that has heirs itself does not hear all of its share yet.
        """
        for heir in [heir for heir in self.heirs if heir.is_complete and not heir.heirs]:
            start = heir.session.listening_from if heir.session is not None else None
            if start is not None and session.release(start, self._wiring.clock.now()):
                self._owner.handed_on(self, heir)

    def _full(self) -> None:
        """Ask for another connection for the markets that find no room on this one; this one hears on meanwhile."""
        now_s, asked_s = self._wiring.clock.monotonic(), self._split_asked_s
        if not self.heirs and (asked_s is None or now_s - asked_s >= SPLIT_AGAIN_S):
            is_split = self._owner.split(self, "too many markets", keeps=True)
            self._split_asked_s = None if is_split else now_s
