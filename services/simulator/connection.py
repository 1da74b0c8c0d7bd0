"""One websocket: its line's actions written to the socket, bounded, without ever waiting for a client.

All frames of a round go out in one write. What a client does not read waits in the transport's buffer; when that is full
the subscriptions that have something to say die with error 25, and a client that reads nothing at all is cut off.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

from aiohttp import WSMsgType, web

from services.simulator.line import Action, Close, Line, Reset
from services.simulator.wire import wire_bytes

COMMAND_BYTES_MAX = 16 * 1024 * 1024
CLOSE_WAIT_S = 2.0
"""How long a client has to answer a close frame before its socket goes."""
_ERRORS_BYTES_MAX = 64 * 1024
"""Room for error frames and pings above the bound, before the connection itself is cut."""
_LOOK_S = 0.1
"""Time between two looks whether the client of a dead connection has gone."""
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: the kernel then ends the connection with RST."""


class Connection:
    """A line on a transport.

    Args:
        outbound_bytes_max: bytes that may wait for the client. turn: shared by all connections: one command of all of
            them is done in each turn of the loop, so that publishing goes on while everybody subscribes at once.
    """

    def __init__(
        self,
        line: Line,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        outbound_bytes_max: int,
        turn: asyncio.Lock,
    ) -> None:
        self.line = line
        self._websocket = websocket
        self._transport = transport
        self._bytes_max = outbound_bytes_max
        self._turn = turn
        self._closing: asyncio.TimerHandle | None = None

    def flush(self, now_ms: int) -> None:
        """Write what the line has to say."""
        line = self.line
        if not line.is_due(now_ms):
            return
        transport = self._transport
        if transport.is_closing():
            line.take(now_ms)
            return
        waiting = transport.get_write_buffer_size()
        if waiting > self._bytes_max and line.session.out:
            line.overflow(now_ms)
            if waiting > self._bytes_max + _ERRORS_BYTES_MAX and not line.session.subscriptions:
                transport.abort()
                return
        actions = line.take(now_ms)
        if actions:
            transport.write(wire_bytes(actions))
            if line.is_over:
                self._end(actions[-1])

    async def serve(self, now_ms: Callable[[], int]) -> None:
        """Take what the client sends until it goes; a dead line hears nothing, not even a close."""
        line = self.line
        while True:
            message = await self._websocket.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                async with self._turn:
                    line.receive(message.data, now_ms())
                    self.flush(now_ms())
                    await asyncio.sleep(0)
            elif message.type is WSMsgType.PING:
                if line.answers(now_ms()):
                    await self._websocket.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                break
        if line.is_dead:
            await self._gone()
        elif not self._websocket.closed and not line.is_over:
            await self._websocket.close(code=message.data or 1000, drain=False)

    def close(self) -> None:
        """Let the transport go."""
        if self._closing is not None:
            self._closing.cancel()
        if not self._transport.is_closing():
            self._transport.close()

    def _end(self, ending: Action) -> None:
        if isinstance(ending, Reset):
            made: socket.socket = self._transport.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            self._transport.abort()
        elif isinstance(ending, Close):
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(CLOSE_WAIT_S, self._transport.close)

    async def _gone(self) -> None:
        """Wait until the client's end of the socket is closed; nothing else tells of it here."""
        while not self._transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
