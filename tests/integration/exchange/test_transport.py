"""The websocket transport against small servers of our own: orderly, rude, and broken ones."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from libs.exchange.errors import (
    ApiError,
    ApiUnavailable,
    AuthRejected,
    ClockSkewed,
    ConnectionEnded,
    TransportError,
)
from libs.exchange.signing import Signer, verify
from libs.exchange.transport import TransportSettings, open_connection

KEY = ed25519.Ed25519PrivateKey.generate()
SIGNER = Signer(
    "key-1",
    KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ),
)
PATH = "/trade-api/ws/v2"

Script = Callable[[web.WebSocketResponse, web.Request], Awaitable[None]]


class RealClock:
    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


CLOCK = RealClock()


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """Serve the websocket path with a plain handler; hand out its address."""
    app = web.Application()
    app.router.add_get(PATH, handler)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}{PATH}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def speaking(script: Script) -> AsyncIterator[str]:
    """Serve a websocket that follows the script and then closes with 1000."""

    async def handle(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(autoping=False)
        await ws.prepare(request)
        await script(ws, request)
        await ws.close(code=1000, message=b"done")
        return ws

    async with serving(handle) as url:
        yield url


async def test_frames_come_in_order_with_their_time_and_as_bytes() -> None:
    """Every frame arrives once, in order, as bytes with its newline; then the exchange's close is raised."""

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        for number in range(1000):
            await ws.send_str(f'{{"n":{number}}}\n')

    before = CLOCK.now()
    async with asyncio.timeout(60), speaking(script) as url, open_connection(url, None, CLOCK) as c:
        first = await c.receive()
        frames = [first]
        with pytest.raises(ConnectionEnded) as caught:
            while True:
                many = await c.receive_many(100)
                assert 1 <= len(many) <= 100
                frames += many
        assert (caught.value.code, caught.value.reason) == (1000, "done")
        assert c.ended is caught.value
        with pytest.raises(ConnectionEnded):
            await c.receive()
    assert [frame.data for frame in frames] == [b'{"n":%d}\n' % n for n in range(1000)]
    stamps = [frame.received_at for frame in frames]
    assert before <= stamps[0]
    assert stamps == sorted(stamps)


async def test_the_upgrade_is_signed_and_commands_arrive() -> None:
    """The server can verify GET and the socket's path, and reads what we send as text."""
    heard: dict[str, str] = {}

    async def script(ws: web.WebSocketResponse, request: web.Request) -> None:
        heard.update(request.headers)
        message = await ws.receive()
        assert message.type is aiohttp.WSMsgType.TEXT
        await ws.send_bytes(message.data.encode())

    async with (
        asyncio.timeout(60),
        speaking(script) as url,
        open_connection(url, SIGNER, CLOCK) as c,
    ):
        await c.send(b'{"id":1}')
        assert (await c.receive()).data == b'{"id":1}'
    assert verify(
        SIGNER.public_key,
        heard["KALSHI-ACCESS-TIMESTAMP"],
        "GET",
        PATH,
        heard["KALSHI-ACCESS-SIGNATURE"],
    )
    assert "Sec-WebSocket-Extensions" not in heard


async def test_pings_are_answered_and_count_as_heard() -> None:
    """The server's `heartbeat` gets its pong without the owner doing anything; our ping gets one back."""
    got: list[tuple[aiohttp.WSMsgType, bytes]] = []

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        await ws.ping(b"heartbeat")
        for _number in range(2):
            message = await ws.receive()
            got.append((message.type, bytes(message.data)))
        await ws.pong(b"")
        await ws.send_str("end")

    async with asyncio.timeout(60), speaking(script) as url, open_connection(url, None, CLOCK) as c:
        heard = c.last_heard
        await c.ping()
        assert (await c.receive()).data == b"end"
        assert c.last_heard > heard
    assert sorted(got) == [(aiohttp.WSMsgType.PING, b""), (aiohttp.WSMsgType.PONG, b"heartbeat")]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            401,
            '{"error":{"code":"authentication_error","details":"NOT_FOUND"}}',
            AuthRejected,
            "NOT_FOUND",
        ),
        (403, "", AuthRejected, "api_key_id"),
        (401, '{"error":{"code":"header_timestamp_expired"}}', ClockSkewed, "clock"),
        (502, "<html>Bad Gateway</html>", ApiUnavailable, "502"),
        (404, '{"code":"not_found"}', ApiError, "not_found"),
        (200, "hello", TransportError, "no websocket"),
    ],
)
async def test_a_refused_upgrade_says_why(
    status: int, body: str, kind: type[Exception], words: str
) -> None:
    """The status and the body of a refusal decide: the key, the clock, or try again later."""

    async def handle(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body)

    async with asyncio.timeout(60), serving(handle) as url:
        with pytest.raises(kind, match=words):
            async with open_connection(url, SIGNER, CLOCK):
                pass


async def test_a_reset_without_close_frame_is_a_retryable_end() -> None:
    """Frames that came before the reset are handed out; then the end has no code and is retryable."""

    async def script(ws: web.WebSocketResponse, request: web.Request) -> None:
        await ws.send_str("one")
        assert request.transport is not None
        request.transport.abort()

    async with asyncio.timeout(60), speaking(script) as url, open_connection(url, None, CLOCK) as c:
        frames = []
        with pytest.raises(ConnectionEnded) as caught:
            while True:
                frames.append((await c.receive()).data)
        assert caught.value.code is None
        assert caught.value.retryable
        assert frames in ([], [b"one"])
        with pytest.raises(TransportError):
            await c.send(b"x")
        with pytest.raises(TransportError):
            await c.ping()


async def test_a_frame_above_the_limit_ends_the_connection() -> None:
    """A frame larger than frame_bytes_max is refused by us, with a reason that says so."""

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        await ws.send_str("x" * 2000)
        await ws.receive()

    settings = TransportSettings(frame_bytes_max=1000, close_timeout_s=0.2)
    async with (
        asyncio.timeout(60),
        speaking(script) as url,
        open_connection(url, None, CLOCK, settings) as c,
    ):
        with pytest.raises(ConnectionEnded, match="refused the stream") as caught:
            await c.receive()
        assert caught.value.code == 1009


async def test_a_frame_of_many_mebibytes_is_taken_and_one_byte_too_many_is_not() -> None:
    """The limit itself still passes: an `ok` that repeats 500,000 markets has some 20 MiB."""
    limit = 20 * 1024 * 1024

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        await ws.send_bytes(b"x" * limit, compress=0)
        await ws.send_bytes(b"x" * (limit + 1), compress=0)

    settings = TransportSettings(frame_bytes_max=limit, close_timeout_s=0.2)
    async with (
        asyncio.timeout(60),
        speaking(script) as url,
        open_connection(url, None, CLOCK, settings) as c,
    ):
        assert len((await c.receive()).data) == limit
        with pytest.raises(ConnectionEnded) as caught:
            await c.receive()
        assert caught.value.code == 1009
    assert TransportSettings().frame_bytes_max == 64 * 1024 * 1024


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011])
async def test_the_exchanges_close_code_is_told(code: int) -> None:
    """What ends a connection decides what becomes of its slot."""

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        await ws.close(code=code, message=b"why")

    async with asyncio.timeout(60), speaking(script) as url, open_connection(url, None, CLOCK) as c:
        with pytest.raises(ConnectionEnded) as caught:
            await c.receive()
        assert (caught.value.code, caught.value.reason) == (code, "why")


async def test_a_slow_owner_pushes_back_and_loses_nothing() -> None:
    """The buffer stops at its limit while the owner sleeps; afterwards every frame is there."""
    sent = asyncio.Event()

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        for number in range(50):
            await ws.send_str(str(number))
        sent.set()

    settings = TransportSettings(buffer_frames_max=8)
    async with (
        asyncio.timeout(60),
        speaking(script) as url,
        open_connection(url, None, CLOCK, settings) as c,
    ):
        await sent.wait()
        frames = [(await c.receive()).data]
        assert c.buffered <= 8
        with pytest.raises(ConnectionEnded):
            while True:
                frames += [frame.data for frame in await c.receive_many(3)]
    assert frames == [str(number).encode() for number in range(50)]


async def test_a_cancelled_receive_loses_nothing() -> None:
    """A receive that was given up does not swallow the next frame."""
    go = asyncio.Event()

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        await go.wait()
        await ws.send_str("one")

    async with asyncio.timeout(60), speaking(script) as url, open_connection(url, None, CLOCK) as c:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await c.receive()
        go.set()
        assert (await c.receive()).data == b"one"


async def test_closing_wakes_a_waiting_owner() -> None:
    """close() ends a receive that waits beside it."""

    async def script(ws: web.WebSocketResponse, _: web.Request) -> None:
        await ws.receive()

    async with asyncio.timeout(60), speaking(script) as url, open_connection(url, None, CLOCK) as c:
        waiting = asyncio.create_task(c.receive())
        await asyncio.wait((waiting,), timeout=0.02)
        await c.close()
        with pytest.raises(ConnectionEnded, match="closed by us"):
            await waiting


async def test_closing_takes_no_longer_because_frames_still_come() -> None:
    """An exchange that is far behind sends on after our close frame; with a full buffer nobody would take that."""
    is_full = asyncio.Event()

    async def script(_: web.WebSocketResponse, request: web.Request) -> None:
        transport = request.transport
        assert transport is not None
        for number in count():
            # Past the server's websocket, which would answer our close frame.
            transport.write(b"\x81\x01x")
            await asyncio.sleep(0.05)
            if number == 5:
                is_full.set()
            if transport.is_closing():
                break

    settings = TransportSettings(close_timeout_s=0.3, buffer_frames_max=2)
    async with asyncio.timeout(60), speaking(script) as url:
        async with open_connection(url, None, CLOCK, settings) as c:
            await is_full.wait()
            assert c.buffered == 2
            started = CLOCK.monotonic()
        assert CLOCK.monotonic() - started < 20


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    """connect_timeout_s bounds the whole dial; a closed port is an error at once; both are retryable."""
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = TransportSettings(connect_timeout_s=0.1)
    async with asyncio.timeout(60):
        with pytest.raises(TransportError, match=r"no answer from .* in 0\.1 s"):
            async with open_connection(f"ws://127.0.0.1:{port}{PATH}", None, CLOCK, settings):
                pass
        await gone.wait()
        server.close()
        with pytest.raises(TransportError, match="cannot connect"):
            async with open_connection(f"ws://127.0.0.1:{port}{PATH}", None, CLOCK):
                pass
