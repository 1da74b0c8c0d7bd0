"""An open connection while it is served: frames to the session, commands from it, and a look at whether it still lives.

Two things happen at once, reading and the second's tick; the first that ends ends both. A frame is handed to the session
as soon as it is read; nothing here waits for the database, and the reader waits for nothing else.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from libs.exchange.transport import Connection
from libs.flow.placement import kind_of
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger
from services.connector.errors import Late, Silent
from services.connector.lateness import Lateness
from services.connector.session import Session
from services.connector.wiring import Wiring

log = get_logger(__name__)

FRAMES_PER_READ_MAX = 512
TICK_S = 1.0
GOODBYE_S_MAX = 2.0
"""Seconds to wait for the answer to unsubscribe; it proves the last frames, but nothing depends on it."""
SEND_S_MAX = 10.0
"""Seconds a command may wait for room in the socket: a peer that reads nothing for so long is gone, and who waits for it
longer does not see that it is silent either."""


class Closed(Exception):
    """The connection was closed by us."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the part wants to know: closing says why to end, None: go on; `tick` comes before every tick's commands go out,
    the others at every tick while it is so.
    """

    closing: Callable[[], str | None]
    tick: Callable[[Session], None]
    complete: Callable[[Session], None]
    full: Callable[[], None]


class Serving:
    """One connection and its session, until it ends. `poke` wakes the tick early."""

    def __init__(
        self,
        name: str,
        conn: Connection,
        session: Session,
        lateness: Lateness,
        wiring: Wiring,
        poke: asyncio.Event,
        hooks: Hooks,
    ) -> None:
        self._name = name
        self._conn = conn
        self._session = session
        self._lateness = lateness
        self._wiring = wiring
        self._poke = poke
        self._hooks = hooks

    async def run(self) -> None:
        """Serve until the connection ends; return when it was closed by us.

        Raises:
            ExchangeError, ConnectorError: why it ended.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read(), name=f"read-{self._name}")
                tasks.create_task(self._tick(), name=f"tick-{self._name}")
        except BaseExceptionGroup as group:
            first = first_error(group)
            if not isinstance(first, Closed):
                raise first from first.__cause__

    async def _read(self) -> None:
        wiring, session, conn = self._wiring, self._session, self._conn
        receive, answers, clock = session.receive, session.answers, wiring.clock
        pipelines = list(wiring.pipelines.values())
        kind = kind_of(session.slot)
        count_frames = wiring.metrics.ws_frames_received_total.labels(channel=kind)
        count_bytes = wiring.metrics.ws_bytes_received_total.labels(channel=kind)
        while True:
            frames = await conn.receive_many(FRAMES_PER_READ_MAX)
            session.pass_time(int(clock.monotonic() * 1_000_000))
            size = 0
            for data, received_at in frames:
                receive(data, received_at)
                size += len(data)
            now = frames[-1].received_at
            for pipeline in pipelines:
                pipeline.pump_full(now)
            count_frames.inc(len(frames))
            count_bytes.inc(size)
            if session.answers != answers:
                answers = session.answers
                self._poke.set()

    # --- the second's tick ---

    async def _tick(self) -> None:
        session, hooks = self._session, self._hooks
        while True:
            self._poke.clear()
            session.pass_time(self._wiring.moment())
            session.tick(self._wiring.clock.now())
            if (reason := hooks.closing()) is not None:
                await self._say_goodbye(reason)
            hooks.tick(session)
            await self._send()
            self._watch()
            if session.is_complete:
                hooks.complete(session)
            if session.markets.is_full:
                hooks.full()
            self.note()
            await self._poked(TICK_S)

    async def _poked(self, seconds: float) -> None:
        await first_of(self._poke, timeout_s=seconds)
        self._poke.clear()

    async def _send(self) -> None:
        for command in self._session.take_commands():
            try:
                async with asyncio.timeout(SEND_S_MAX):
                    await self._conn.send(command)
            except TimeoutError as error:
                raise Silent(f"the exchange took no command for {SEND_S_MAX:g} s") from error

    def _watch(self) -> None:
        """Look whether the connection is still worth having.

        Raises:
            Silent: nothing was heard for too long. Late: frames come ever later.
        """
        now_s = self._wiring.clock.monotonic()
        silence = now_s - self._conn.last_heard
        if silence > self._wiring.silence_s_max:
            raise Silent(f"neither a frame nor a ping for {silence:.0f} s")
        newest = self._session.take_newest()
        if newest is None:
            return
        is_late = self._lateness.sample(*newest)
        if self._conn.buffered >= FRAMES_PER_READ_MAX:
            # What is late here waited for us: another connection would only make more work.
            self._lateness.excuse()
        elif is_late and self._wiring.turns.take(now_s):
            late_s = self._lateness.late / 1_000_000
            raise Late(f"frames come {late_s:.1f} s later than they did on this connection")

    async def _say_goodbye(self, reason: str) -> None:
        session, clock = self._session, self._wiring.clock
        session.unsubscribe(reason)
        await self._send()
        until = clock.monotonic() + GOODBYE_S_MAX
        while session.sids and (left := until - clock.monotonic()) > 0:
            await self._poked(left)
        raise Closed

    def note(self) -> None:
        """Carry the session's counts over to metrics."""
        session, metrics = self._session, self._wiring.metrics
        new = session.noted - session.exported
        session.exported = Counter(session.noted)
        self._wiring.noted += new
        metrics.ws_sequence_gaps_total.inc(new["gap"])
        metrics.stream_time_regressions_total.inc(new["regression"])
        metrics.margin_exceeded_total.inc(new["late"])
        if new["rejected"]:
            metrics.rejected_frames_total.labels(reason="frame").inc(new["rejected"])
            log.warning("frames_rejected", slot=self._name, frames=new["rejected"])
        if session.received_at:
            metrics.ws_last_frame_timestamp_seconds.set(session.received_at / 1_000_000)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group; our own closing only when there is no other."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += [first_error(error)] if isinstance(error, BaseExceptionGroup) else [error]
    return next((leaf for leaf in leaves if not isinstance(leaf, Closed)), leaves[0])
