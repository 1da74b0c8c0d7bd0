"""One websocket: its session's frames written to the socket, bounded, without ever waiting for a client.

All frames of a round go out in one write. What a client does not read waits in the transport's buffer; when that is full
the subscriptions that have something to say die with error 25, and a client that reads nothing at all is cut off.
"""

import asyncio
from collections.abc import Callable

from aiohttp import WSMsgType, web

from services.simulator.frames import HEARTBEAT, websocket_bytes
from services.simulator.session import Session

COMMAND_BYTES_MAX = 16 * 1024 * 1024
_ERRORS_BYTES_MAX = 64 * 1024
"""Room for error frames and pings above the bound, before the connection itself is cut."""


class Connection:
    """A session on a transport.

    Args:
        outbound_bytes_max: bytes that may wait for the client.
    """

    def __init__(
        self,
        session: Session,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        outbound_bytes_max: int,
        key_id: str,
    ) -> None:
        self.session = session
        self.key_id = key_id
        self.overflows = 0
        self._socket = socket
        self._transport = transport
        self._bytes_max = outbound_bytes_max
        self._ping_handle: asyncio.TimerHandle | None = None

    def flush(self, now_ms: int) -> None:
        """Write what the session has to say."""
        session = self.session
        if not session.out:
            return
        transport = self._transport
        if transport.is_closing():
            session.take_out()
            return
        waiting = transport.get_write_buffer_size()
        if waiting > self._bytes_max:
            self.overflows += 1
            session.overflow(now_ms)
            if waiting > self._bytes_max + _ERRORS_BYTES_MAX and not session.subscriptions:
                transport.abort()
                return
        transport.write(websocket_bytes(session.take_out()))

    async def serve(self, now_ms: Callable[[], int]) -> None:
        """Take commands until the client goes."""
        async for message in self._socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.session.receive(message.data, now_ms())
                self.flush(now_ms())

    def ping_every(self, seconds: float) -> None:
        """Ping now and then until close, as the exchange does."""
        self._ping_handle = asyncio.get_running_loop().call_later(seconds, self._ping, seconds)

    def _ping(self, seconds: float) -> None:
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() <= self._bytes_max:
            self._transport.write(HEARTBEAT)
        self.ping_every(seconds)

    def close(self) -> None:
        """Stop pinging and let the transport go."""
        if self._ping_handle is not None:
            self._ping_handle.cancel()
        if not self._transport.is_closing():
            self._transport.close()
