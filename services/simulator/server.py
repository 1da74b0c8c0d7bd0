"""The composition of the simulator, and the handle other processes and tests hold it by."""

import asyncio
import itertools
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from aiohttp import web

from libs.exchange.signing import KEY_HEADER
from libs.marketdata.units import MILLISECOND
from libs.runtime.clock import Clock, SystemClock
from services.simulator import control
from services.simulator.connection import COMMAND_BYTES_MAX, Connection
from services.simulator.exchange import Exchange
from services.simulator.journal import Journal
from services.simulator.keys import KeyRing
from services.simulator.recording import read_recording
from services.simulator.replay import Replay
from services.simulator.rest import Rest, guard, refused
from services.simulator.session import Session
from services.simulator.settings import SimulatorSettings
from services.simulator.stages import LiveStage, ReplayStage, Stage
from services.simulator.subscription import BOOKS, TICKERS, Subscription
from services.simulator.tasks import publish_forever

WS_PATH = "/trade-api/ws/v2"


class SimulatorServer:
    """A running simulated exchange; made by `start_simulator` or `running_simulator`.

    Attributes: `rest_url` (http://HOST:PORT/trade-api/v2), `ws_url` (ws://HOST:PORT/trade-api/ws/v2),
    `control_url` (http://HOST:PORT/control), `port` (the actual one), `exchange` (the state, for tests).
    """

    def __init__(self, settings: SimulatorSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.port = settings.port
        self.clock: Clock = clock or SystemClock()
        self.exchange = Exchange(settings.trades_kept)
        self.connections: dict[int, Connection] = {}
        self._numbers = itertools.count(1)
        self._keys = KeyRing.load(settings.keys, settings.clock_skew_ms_max)
        self._resources = AsyncExitStack()
        self._stopping: asyncio.Task[dict[str, object]] | None = None
        self._end: int | None = None
        self._final: int | None = None

    @property
    def rest_url(self) -> str:
        return f"http://{self.settings.host}:{self.port}/trade-api/v2"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.settings.host}:{self.port}{WS_PATH}"

    @property
    def control_url(self) -> str:
        return f"http://{self.settings.host}:{self.port}/control"

    @property
    def epoch(self) -> int:
        """Model time zero, microseconds since 1970."""
        return self.stage.epoch

    async def open(self) -> None:
        """Open journals, list the markets, listen.

        Raises:
            RecordingInvalid, OSError: the recording, the journal directory or the port cannot be had.
        """
        directory = self.settings.journal_dir or self._resources.enter_context(
            tempfile.TemporaryDirectory(prefix="simulator-")
        )
        self.market_journal = Journal(Path(directory) / "market.jsonl")
        self._resources.callback(self.market_journal.close)
        self.session_journal = Journal(Path(directory) / "session.jsonl")
        self._resources.callback(self.session_journal.close)
        self.stage: Stage = self._make_stage()
        await self._listen()

    async def close(self) -> None:
        """Let every client go, write the journals out, close the port."""
        for connection in list(self.connections.values()):
            connection.close()
        if self._stopping is not None:
            self._stopping.cancel()
        await self._resources.aclose()

    def publish_in_background(self) -> None:
        """Publish until close, for whoever has no task group of his own."""
        task = asyncio.create_task(publish_forever(self), name="publish")
        self._resources.push_async_callback(_end, task)

    def publish_once(self) -> bool:
        """Publish what has happened since the last round; False when another round is due at once."""
        if self._end is not None:
            return True
        now = self.clock.now()
        is_done = self.stage.tick(now)
        self._flush(now)
        return is_done

    async def stop_publishing(self) -> dict[str, object]:
        """End publishing at a whole millisecond, send one more frame on every sid, write the journals out.

        Returns the journal's `end` record: `end_ts` (nothing later was published but the last changes) and
        `final_ts` (their time), microseconds. Asked again it returns the same.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop_publishing(), name="stop publishing")
        return await asyncio.shield(self._stopping)

    def books(self) -> list[dict[str, object]]:
        """Return every market's book as it stands, integers in our units."""
        return [listing.book_record() for listing in self.exchange.listings.values()]

    def state(self) -> dict[str, object]:
        """Return what /control/state shows; times in microseconds since 1970."""
        now = self.clock.now()
        return {
            "mode": self.stage.mode,
            "seed": self.settings.seed,
            "epoch": self.epoch,
            "now": now,
            "model_time": (self._end or now) - self.epoch,
            "end_ts": self._end,
            "final_ts": self._final,
            "lag_us_max": self.stage.lag_max,
            "markets": len(self.exchange.listings),
            "published": dict(self.exchange.counts),
            "connections": [_describe(connection) for connection in self.connections.values()],
        }

    def _make_stage(self) -> Stage:
        now = self.clock.now()
        settings = self.settings.replay
        if not settings.file:
            return LiveStage(self.settings, self.exchange, self.market_journal, now)
        recording = read_recording(Path(settings.file), settings.use_yes_price)
        replay = Replay(recording, settings, self.exchange, now)
        return ReplayStage(replay, self.market_journal, now)

    async def _listen(self) -> None:
        rest = Rest(self.exchange, self._keys, self.clock.now)
        app = web.Application(middlewares=[guard(rest)])
        app.add_routes(rest.routes())
        app.add_routes(control.routes(self))
        app.router.add_get(WS_PATH, self._accept)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._resources.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, self.settings.host, self.settings.port)
        await site.start()
        self.port = runner.addresses[0][1]

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        refusal = self._keys.refuse(request.headers, "GET", WS_PATH, self._now_ms())
        if refusal is not None:
            return refused(refusal)
        socket = web.WebSocketResponse(compress=False, max_msg_size=COMMAND_BYTES_MAX)
        await socket.prepare(request)
        # Of another loop's making: uvloop's transports only look like asyncio's.
        transport = cast("asyncio.Transport", request.transport)
        number = next(self._numbers)
        feed, record = self.stage.feed, self.session_journal.record
        session = Session(number, feed, record, self.stage.sids, self.stage.stamps)
        connection = Connection(
            session,
            socket,
            transport,
            self.settings.outbound_bytes_max,
            request.headers[KEY_HEADER],
        )
        session.set_time(self._now_ms())
        session.note(
            "opened", id=str(uuid.uuid4()), key_id=connection.key_id, remote=request.remote
        )
        self.connections[number] = connection
        self.exchange.sessions[number] = session
        connection.ping_every(self.settings.ping_s)
        try:
            await connection.serve(self._now_ms)
        finally:
            self._forget(connection)
        return socket

    def _forget(self, connection: Connection) -> None:
        session = connection.session
        session.close(self._now_ms())
        session.note("closed", overflows=connection.overflows)
        connection.close()
        self.connections.pop(session.number, None)
        self.exchange.sessions.pop(session.number, None)

    async def _stop_publishing(self) -> dict[str, object]:
        now = self.clock.now()
        end = self.stage.end(now)
        self._end = end
        self._flush(now)
        final = end + self.settings.quiet_ms * MILLISECOND
        # Waited for by the wall clock: the last changes must not be sent before their own time.
        while (now := self.clock.now()) < final:  # noqa: ASYNC110
            await asyncio.sleep(min((final - now) / 1e6, 0.1))
        self._final = final
        self.stage.finish(final, now)
        self._speak_everywhere(now)
        self._flush(now)
        record: dict[str, object] = {
            "kind": "end",
            "at": now,
            "mode": self.stage.mode,
            "seed": self.settings.seed,
            "epoch": self.epoch,
            "end_ts": end,
            "final_ts": final,
            "published": dict(self.exchange.counts),
            "lag_us_max": self.stage.lag_max,
        }
        self.session_journal.record(record)
        for book in self.books():
            self.session_journal.record({"kind": "final_book", **book})
        self.market_journal.flush()
        self.session_journal.flush()
        return record

    def _speak_everywhere(self, now: int) -> None:
        """Give every sid that the last changes did not reach a frame of its own, where it can have one."""
        for connection in self.connections.values():
            session = connection.session
            session.set_time(now // MILLISECOND)
            for subscription in session.subscriptions.values():
                if subscription not in session.written:
                    _speak(subscription)

    def _flush(self, now: int) -> None:
        now_ms = now // MILLISECOND
        for connection in list(self.connections.values()):
            connection.flush(now_ms)

    def _now_ms(self) -> int:
        return self.clock.now() // MILLISECOND


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _speak(subscription: Subscription) -> None:
    ticker = next(iter(subscription.tickers or ()), None)
    if ticker is None:
        return
    if subscription.channel == BOOKS:
        subscription.session.send_snapshot(subscription, ticker)
    elif subscription.channel == TICKERS:
        subscription.session.feed.send_last_ticker(subscription, ticker)


def _describe(connection: Connection) -> dict[str, object]:
    session = connection.session
    return {
        "connection": session.number,
        "key_id": connection.key_id,
        "overflows": connection.overflows,
        "subscriptions": [
            {
                "sid": subscription.sid,
                "channel": subscription.channel,
                "seq": subscription.seq,
                "markets": None if subscription.tickers is None else len(subscription.tickers),
            }
            for subscription in session.subscriptions.values()
        ],
    }


@asynccontextmanager
async def running_simulator(
    settings: SimulatorSettings, clock: Clock | None = None
) -> AsyncIterator[SimulatorServer]:
    """Run a simulator for the length of a `with` block; use port=0 in tests."""
    server = await start_simulator(settings, clock)
    try:
        yield server
    finally:
        await server.close()


async def start_simulator(
    settings: SimulatorSettings, clock: Clock | None = None
) -> SimulatorServer:
    """Start a simulator that publishes in the background; the caller awaits its `close()`."""
    server = SimulatorServer(settings, clock)
    try:
        await server.open()
    except BaseException:
        await server.close()
        raise
    server.publish_in_background()
    return server
