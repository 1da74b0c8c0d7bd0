"""The composition of the simulator, and the handle other processes and tests hold it by."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from aiohttp import web

from libs.exchange.signing import KEY_HEADER
from libs.marketdata.units import MILLISECOND
from libs.runtime.clock import Clock, SystemClock
from services.simulator.connection import COMMAND_BYTES_MAX, Connection
from services.simulator.control import Control
from services.simulator.exchange import Exchange
from services.simulator.journal import Journal
from services.simulator.keys import KeyRing
from services.simulator.rest import Rest, refused
from services.simulator.settings import SimulatorSettings
from services.simulator.simulation import Simulation
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
        self.connections: dict[int, Connection] = {}
        self._keys = KeyRing.load(settings.keys, settings.clock_skew_ms_max)
        self._turn = asyncio.Lock()
        self._resources = AsyncExitStack()
        self._stopping: asyncio.Task[dict[str, object]] | None = None

    @property
    def rest_url(self) -> str:
        return f"http://{self.settings.host}:{self.port}/trade-api/v2"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.settings.host}:{self.port}{WS_PATH}"

    @property
    def control_url(self) -> str:
        if self.settings.control_port:
            return f"http://{self.settings.control_host}:{self.settings.control_port}/control"
        return f"http://{self.settings.host}:{self.port}/control"

    @property
    def epoch(self) -> int:
        """Model time zero, microseconds since 1970."""
        return self.simulation.stage.epoch

    @property
    def exchange(self) -> Exchange:
        return self.simulation.exchange

    async def open(self) -> None:
        """Open journals, list the markets, listen.

        Raises:
            RecordingInvalid, ScriptInvalid, OSError: recording, fault script, journal directory or port cannot be had.
        """
        directory = self.settings.journal_dir or self._resources.enter_context(
            tempfile.TemporaryDirectory(prefix="simulator-")
        )
        self.market_journal = Journal(Path(directory) / "market.jsonl")
        self._resources.callback(self.market_journal.close)
        self.session_journal = Journal(Path(directory) / "session.jsonl")
        self._resources.callback(self.session_journal.close)
        self.simulation = Simulation(
            self.settings, self.market_journal, self.session_journal, self.clock.now()
        )
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
        now = self.clock.now()
        is_done = self.simulation.advance(now)
        self._flush(now)
        return is_done

    def start_publishing(self) -> bool:
        """Begin to publish where settings.held; False when that has happened before."""
        return self.simulation.start(self.clock.now())

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
        return self.simulation.books()

    def state(self) -> dict[str, object]:
        """Return what /control/state shows; times in microseconds since 1970."""
        return self.simulation.state(self.clock.now())

    async def _listen(self) -> None:
        trouble = self.simulation.rest_trouble
        self.rest = Rest(self.exchange, self._keys, self.clock.now, self.settings, trouble)
        app = web.Application()
        app.add_routes(self.rest.routes())
        app.router.add_get(WS_PATH, self._accept)
        settings, routes = self.settings, Control(self).routes()
        if settings.control_port:
            control = web.Application()
            control.add_routes(routes)
            await self._serve(control, settings.control_host, settings.control_port)
        else:
            app.add_routes(routes)
        self.port = await self._serve(app, settings.host, settings.port)

    async def _serve(self, app: web.Application, host: str, port: int) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._resources.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, host, port).start()
        return int(runner.addresses[0][1])

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        refusal = self._keys.refuse(request.headers, "GET", WS_PATH, self._now_ms())
        if refusal is not None:
            return refused(refusal)
        key_id = request.headers[KEY_HEADER]
        no = self.simulation.refuse_connect(key_id, self.clock.now())
        if no is not None:
            return web.Response(body=no.body, status=no.status, content_type=no.content_type)
        websocket = web.WebSocketResponse(
            compress=False, max_msg_size=COMMAND_BYTES_MAX, autoping=False, autoclose=False
        )
        await websocket.prepare(request)
        # Of another loop's making: uvloop's transports only look like asyncio's.
        transport = cast("asyncio.Transport", request.transport)
        line = self.simulation.connect(key_id, request.remote, self.clock.now())
        bytes_max = self.settings.outbound_bytes_max
        connection = Connection(line, websocket, transport, bytes_max, self._turn)
        self.connections[line.number] = connection
        try:
            await connection.serve(self._now_ms)
        finally:
            self.simulation.disconnect(line, self.clock.now())
            connection.close()
            del self.connections[line.number]
        return websocket

    async def _stop_publishing(self) -> dict[str, object]:
        now = self.clock.now()
        final = self.simulation.end(now) + self.settings.quiet_ms * MILLISECOND
        self._flush(now)
        # Waited for by the wall clock: the last changes must not be sent before their own time.
        while (now := self.clock.now()) < final:  # noqa: ASYNC110
            await asyncio.sleep(min((final - now) / 1e6, 0.1))
        record = self.simulation.finish(final, now)
        self._flush(now)
        self.market_journal.flush()
        self.session_journal.flush()
        return record

    def _flush(self, now: int) -> None:
        now_ms = now // MILLISECOND
        for connection in list(self.connections.values()):
            connection.flush(now_ms)

    def _now_ms(self) -> int:
        return self.clock.now() // MILLISECOND


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


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
