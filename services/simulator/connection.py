"""One websocket: its line's actions written to the socket, bounded, without ever waiting for a client.

All frames of a round go out in one write. What a client does not read waits in the transport's buffer; when that is full
the subscriptions that have something to say die with error 25, and a client that reads nothing at all is cut off.
"""

import asyncio
from collections.abc import Callable

from aiohttp import WSMsgType, web

from services.simulator.frames import HEARTBEAT, websocket_header
from services.simulator.line import Action, Close, Line, Ping

COMMAND_BYTES_MAX = 16 * 1024 * 1024
_ERRORS_BYTES_MAX = 64 * 1024
"""Room for error frames and pings above the bound, before the connection itself is cut."""


def wire_bytes(actions: list[Action]) -> bytes:
    """Join actions to what is written to a connection at once; a reset has no bytes."""
    parts: list[bytes] = []
    for action in actions:
        if type(action) is bytes:
            parts.append(websocket_header(len(action)))
            parts.append(action)
        elif type(action) is Ping:
            parts.append(HEARTBEAT)
        elif type(action) is Close:
            payload = action.code.to_bytes(2, "big") + action.reason.encode()
            parts.append(bytes((0x88, len(payload))) + payload)
    return b"".join(parts)


class Connection:
    """A line on a transport.

    Args:
        outbound_bytes_max: bytes that may wait for the client.
    """

    def __init__(
        self,
        line: Line,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        outbound_bytes_max: int,
    ) -> None:
        self.line = line
        self._websocket = websocket
        self._transport = transport
        self._bytes_max = outbound_bytes_max

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
        transport.write(wire_bytes(actions))

    async def serve(self, now_ms: Callable[[], int]) -> None:
        """Take commands until the client goes."""
        async for message in self._websocket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.line.receive(message.data, now_ms())
                self.flush(now_ms())

    def close(self) -> None:
        """Let the transport go."""
        if not self._transport.is_closing():
            self._transport.close()
