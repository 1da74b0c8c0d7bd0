"""The websocket transport: one connection, one reader, frames as bytes with the moment they came.

It stands on aiohttp: receiving a 300-byte frame costs 0.7 us of CPU where `websockets` costs 3.4 (loopback, uvloop).
Compression is not asked for: inflating costs more CPU than the bytes saved are worth, and the feed is small.

The reader task waits for the socket and, when the owner is far behind, for room in its bounded buffer; then aiohttp
stops reading and TCP pushes back. A server ping is answered by the reader itself, so a busy owner loses no connection.
"""

import asyncio
import contextlib
import functools
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import aiohttp
from aiohttp import WSMsgType

from libs.exchange.environments import path_of
from libs.exchange.errors import ConnectionEnded, TransportError
from libs.exchange.frames import Clock, Frame
from libs.exchange.rest_errors import raise_for_answer
from libs.exchange.signing import Signer

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Limits of one connection."""

    connect_timeout_s: float = 10.0
    """Seconds for name, TCP, TLS and the upgrade together."""
    close_timeout_s: float = 2.0
    """Seconds that closing may take; then the socket is dropped."""
    frame_bytes_max: int = 64 * MIB
    """Largest frame accepted, bytes; books of busy markets have some 20 kB."""
    buffer_frames_max: int = 8192
    """Frames held for the owner; above it the socket is not read."""
    buffer_bytes_max: int = 64 * MIB
    """Bytes held for the owner; above it the socket is not read."""


@functools.cache
def shared_ssl_context() -> ssl.SSLContext:
    """Return the one TLS context of all connections: each of its own would cost 0.8 MiB."""
    return ssl.create_default_context()


class Connection:
    """One open websocket; made by open_connection.

    One owner calls receive or receive_many; send and ping may be called beside it.
    """

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse[Literal[False]],
        clock: Clock,
        settings: TransportSettings,
    ) -> None:
        self._ws = ws
        self._clock = clock
        self._frames_max = settings.buffer_frames_max
        self._bytes_max = settings.buffer_bytes_max
        self._close_timeout_s = settings.close_timeout_s
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._ended: TransportError | None = None
        self.last_heard = clock.monotonic()
        """Monotonic seconds of the last frame, ping or pong; exact for the first of frames that came together."""
        self._reader = asyncio.create_task(self._read(), name="websocket-reader")

    async def receive(self) -> Frame:
        """Return the next frame.

        Raises:
            ConnectionEnded: the connection is closed and every frame that came was handed out.
        """
        return (await self.receive_many(1))[0]

    async def receive_many(self, count_max: int) -> list[Frame]:
        """Return what is buffered, in order, at most count_max frames; wait only while there is none.

        A cancelled call loses no frame.

        Raises:
            ConnectionEnded: the connection is closed and every frame that came was handed out.
        """
        while not self._frames:
            if self._ended is not None:
                raise self._ended
            self._arrived.clear()
            await self._arrived.wait()
        frames = self._frames
        if len(frames) <= count_max:
            taken = list(frames)
            frames.clear()
            self._bytes = 0
        else:
            taken = [frames.popleft() for _ in range(max(1, count_max))]
            self._bytes -= sum(len(frame.data) for frame in taken)
        # Under load the buffer may never be empty: what is taken now was heard a moment ago.
        self.last_heard = self._clock.monotonic()
        self._room.set()
        return taken

    async def send(self, data: bytes) -> None:
        """Send one text frame.

        Raises:
            TransportError: the connection is closed.
        """
        try:
            await self._ws.send_frame(data, WSMsgType.TEXT)
        except (aiohttp.ClientError, OSError) as error:
            raise self._ended or TransportError(f"cannot send: {error}") from error

    async def ping(self) -> None:
        """Send a ping; the pong shows in last_heard.

        Raises:
            TransportError: the connection is closed.
        """
        try:
            await self._ws.ping(b"")
        except (aiohttp.ClientError, OSError) as error:
            raise self._ended or TransportError(f"cannot send: {error}") from error

    @property
    def buffered(self) -> int:
        """Frames that wait for the owner."""
        return len(self._frames)

    @property
    def ended(self) -> TransportError | None:
        """Why the connection is closed; None while it is open. Frames may still be buffered."""
        return self._ended

    async def close(self) -> None:
        """Send the close frame and drop the socket; it takes close_timeout_s at most, whatever still comes in."""
        self._end(ConnectionEnded(None, "closed by us"))
        self._reader.cancel()
        await asyncio.wait((self._reader,))
        # aiohttp counts its own time anew with every frame that comes before the exchange's close.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_timeout_s):
                await self._ws.close()

    def _end(self, error: TransportError) -> None:
        if self._ended is None:
            self._ended = error
        self._arrived.set()

    async def _read(self) -> None:
        """Move frames from the socket to the buffer until the connection ends."""
        receive, frames, now = self._ws.receive, self._frames, self._clock.now
        text, binary = WSMsgType.TEXT, WSMsgType.BINARY
        try:
            while self._ended is None:
                message = await receive()
                if message.type is not text and message.type is not binary:
                    await self._handle_control(message.type, message.data, message.extra)
                    continue
                # aiohttp gives what it holds without suspending, so the owner wakes once for all of it: only the
                # first frame of such a run needs to wake it, and to say that something was heard.
                if not frames:
                    self.last_heard = self._clock.monotonic()
                    self._arrived.set()
                data = message.data
                frames.append(Frame(data, now()))
                self._bytes += len(data)
                if len(frames) >= self._frames_max or self._bytes >= self._bytes_max:
                    await self._wait_for_room()
        except (aiohttp.ClientError, OSError) as error:
            self._end(ConnectionEnded(None, f"{type(error).__name__}: {error}"))
        finally:
            self._end(ConnectionEnded(None, "the reader stopped"))

    async def _wait_for_room(self) -> None:
        while len(self._frames) >= self._frames_max or self._bytes >= self._bytes_max:
            self._room.clear()
            await self._room.wait()

    async def _handle_control(self, kind: WSMsgType, data: object, extra: str | None) -> None:
        if kind is WSMsgType.PING or kind is WSMsgType.PONG:
            self.last_heard = self._clock.monotonic()
            if kind is WSMsgType.PING and isinstance(data, bytes):
                await self._ws.pong(data)
        elif kind is WSMsgType.CLOSE:
            code = data if isinstance(data, int) else None
            self._end(ConnectionEnded(code, extra or "closed by the exchange"))
        else:
            self._end(self._broken(data))

    def _broken(self, data: object) -> ConnectionEnded:
        """Describe an end without the exchange's close frame."""
        cause = data if isinstance(data, BaseException) else self._ws.exception()
        if isinstance(cause, aiohttp.WebSocketError):
            return ConnectionEnded(cause.code, f"our reader refused the stream: {cause}")
        if cause is not None:
            return ConnectionEnded(None, f"{type(cause).__name__}: {cause}")
        return ConnectionEnded(None, "connection lost without a close frame")


@asynccontextmanager
async def open_connection(
    url: str,
    signer: Signer | None,
    clock: Clock,
    settings: TransportSettings | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Connection]:
    """Open a websocket, hand it out, and close it at the end of the block.

    Raises:
        TransportError: not reachable, too slow, or refused for now (5xx, clock skew): retryable.
        AuthRejected: the key is refused (401 or 403).
        ApiError: refused with another status.
    """
    settings = settings or TransportSettings()
    refusal = _Refusal()
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl_context or shared_ssl_context()),
        timeout=aiohttp.ClientTimeout(total=None),
        trace_configs=[refusal.trace()],
    )
    try:
        connection = await _dial(session, url, signer, clock, settings, refusal)
        try:
            yield connection
        finally:
            await connection.close()
    finally:
        await session.close()


class _Refusal:
    """Keeps the body of a refused upgrade, which aiohttp's own error does not carry."""

    def __init__(self) -> None:
        self.body = b""

    def trace(self) -> aiohttp.TraceConfig:
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._on_request_end)
        return config

    async def _on_request_end(
        self,
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        if params.response.status != 101:
            self.body = await params.response.content.read(65_536)


async def _dial(
    session: aiohttp.ClientSession,
    url: str,
    signer: Signer | None,
    clock: Clock,
    settings: TransportSettings,
    refusal: _Refusal,
) -> Connection:
    headers = signer.headers("GET", path_of(url), clock.now()) if signer else {}
    try:
        async with asyncio.timeout(settings.connect_timeout_s):
            ws = await session.ws_connect(
                url,
                headers=headers,
                autoping=False,
                compress=0,
                decode_text=False,
                # aiohttp takes only what is smaller.
                max_msg_size=settings.frame_bytes_max + 1,
                timeout=aiohttp.ClientWSTimeout(ws_close=settings.close_timeout_s),
            )
    except aiohttp.WSServerHandshakeError as error:
        raise_for_answer(error.status, refusal.body, error.headers or {})
        raise TransportError(f"no websocket at {url}: {error.message}") from error
    except TimeoutError as error:
        raise TransportError(f"no answer from {url} in {settings.connect_timeout_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise TransportError(f"cannot connect to {url}: {error}") from error
    return Connection(ws, clock, settings)
