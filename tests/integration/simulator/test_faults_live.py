"""Faults on real sockets: what a client's operating system and websocket library see of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from services.simulator.faults.entries import read_entry
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.client import Client, connected, get, signed
from tests.integration.simulator.test_process import config, running
from tests.support.keys import KeyPair

Make = Callable[..., SimulatorSettings]
WS_PATH = "/trade-api/ws/v2"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def inject(server: SimulatorServer, **entry: Any) -> None:
    server.simulation.inject(read_entry(entry), server.clock.now())


@asynccontextmanager
async def raw_socket(port: int, key: KeyPair) -> AsyncIterator[Streams]:
    """A websocket by hand, so that the socket's own end can be seen; past the upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(key).items())
    writer.write(
        (
            f"GET {WS_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        ).encode()
    )
    async with asyncio.timeout(60):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader, writer
    finally:
        writer.close()


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload))) + b"\0\0\0\0" + payload


async def ended(client: Client) -> int | None:
    """Receive to the end and return the close code the library reports."""
    async with asyncio.timeout(60):
        while True:
            message = await client.socket.receive()
            if message.type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            ):
                return client.socket.close_code


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011])
async def test_close_codes_arrive(settings: Make, key: KeyPair, code: int) -> None:
    """The client's library reports the code of the fault, and the exchange has forgotten the connection."""
    async with running_simulator(settings()) as server, connected(server, key) as client:
        await client.subscribe("trade")
        await client.take(1)
        inject(server, fault="close", code=code)
        assert server.simulation.lines == {}
        assert await ended(client) == code


async def test_a_reset_is_1006_to_the_library(settings: Make, key: KeyPair) -> None:
    """No close frame comes."""
    async with running_simulator(settings()) as server, connected(server, key) as client:
        await client.subscribe("trade")
        await client.take(1)
        inject(server, fault="reset")
        assert await ended(client) == 1006


async def test_a_process_resets_the_socket_itself(tmp_path: Any, key: KeyPair) -> None:
    """On the loop of production: RST, so that reading fails with ECONNRESET and not with an end of file."""
    keys = [{"key_id": key.key_id, "public_key_file": str(key.public_key_file)}]
    async with running(config(tmp_path, markets=5, rate=1, keys=keys)) as process:
        base = process.listening["rest_url"].removesuffix("/trade-api/v2")
        port = int(base.rpartition(":")[2])
        async with raw_socket(port, key) as (reader, _), aiohttp.ClientSession() as http:
            async with http.post(f"{base}/control/faults", json={"fault": "reset"}) as answer:
                assert answer.status == 201
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(60):
                    while await reader.read(65_536):
                        pass


async def test_a_half_open_socket_hears_and_says_nothing(settings: Make, key: KeyPair) -> None:
    """Commands, pings and a close are not answered, pings do not come; when the client goes, it is forgotten."""
    async with (
        running_simulator(settings(ping_s=0.05, rate=2_000.0)) as server,
        raw_socket(server.port, key) as (reader, writer),
    ):
        command = {"id": 1, "cmd": "subscribe", "params": {"channels": ["trade"]}}
        writer.write(masked(1, json.dumps(command).encode()))
        async with asyncio.timeout(60):
            await reader.readuntil(b"subscribed")
        inject(server, fault="half_open")
        line = server.simulation.lines[1]
        await drained(reader)
        for frame in (
            masked(1, b'{"id":2,"cmd":"list_subscriptions"}'), masked(9, b"ping"), masked(8, b"\x03\xe8"),
        ):  # fmt: skip
            writer.write(frame)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await reader.read(1)
        assert server.simulation.lines == {1: line}
        writer.close()
        async with asyncio.timeout(60):
            while (await state(server))["connections"]:
                pass


async def drained(reader: asyncio.StreamReader) -> None:
    """Read what was on its way before the fault: silent twice, since what came with a late end of the first is left."""
    silent = 0
    while silent < 2:
        try:
            async with asyncio.timeout(0.1):
                assert await reader.read(65_536)
            silent = 0
        except TimeoutError:
            silent += 1


async def state(server: SimulatorServer) -> dict[str, Any]:
    status, body = await get(f"{server.control_url}/state")
    assert status == 200
    assert isinstance(body, dict)
    return body


async def test_pings_of_a_client_are_answered(settings: Make, key: KeyPair) -> None:
    """As any websocket server does, and a close is answered with a close."""
    async with (
        running_simulator(settings()) as server,
        raw_socket(server.port, key) as (reader, writer),
    ):
        writer.write(masked(9, b"are you there"))
        async with asyncio.timeout(60):
            assert await reader.readexactly(15) == b"\x8a\x0dare you there"
            writer.write(masked(8, b"\x03\xe8"))
            assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
            assert await reader.read() == b""


async def test_an_upgrade_is_refused_with_502_and_then_not(settings: Make, key: KeyPair) -> None:
    """The page of a proxy instead of a websocket, until the fault ends."""
    async with running_simulator(settings()) as server:
        inject(server, fault="refuse", for_s=600)
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connected(server, key):
                pass
        assert caught.value.status == 502
        server.simulation.faults.end_all(server.clock.now())
        async with connected(server, key) as client:
            await client.subscribe("trade")
            assert (await client.take(1))[0]["type"] == "subscribed"


async def test_one_connection_too_many_is_429(settings: Make, key: KeyPair) -> None:
    """The limit counts the key's open sockets: our inference, the exchange's own answer is not known."""
    async with (
        running_simulator(settings(connections_max=1)) as server,
        connected(server, key) as client,
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with connected(server, key):
                pass
        assert caught.value.status == 429
        await client.socket.close()
        async with asyncio.timeout(60):
            while (await state(server))["connections"]:
                pass
        async with connected(server, key) as again:
            await again.subscribe("trade")
            await again.take(1)
