"""The simulator before a client that shares nothing with ours: another websocket library, a signature made by hand.

Frames are read as the exchange's documentation says, and the books that come out of them are the simulator's.
"""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from services.simulator.faults.menu import Drop
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import KeySettings, SimulatorSettings
from tests.integration.simulator.client import get

DELTAS = 100
WS_PATH = "/trade-api/ws/v2"
KEY_ID = "11111111-2222-3333-4444-555555555555"

Books = dict[str, dict[str, dict[int, int]]]
"""Ticker -> yes or no -> price in hundred-thousandths of a dollar -> size in hundredths of a contract."""


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
async def server(key: rsa.RSAPrivateKey, tmp_path: Path) -> AsyncIterator[SimulatorServer]:
    """A lively exchange that knows this key and pings often."""
    public = tmp_path / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    settings = SimulatorSettings(
        port=0, markets=12, rate=400.0, new_market_every_s=0.0, quiet_ms=50, ping_s=0.05,
        keys=(KeySettings(KEY_ID, str(public)),),
    )  # fmt: skip
    async with running_simulator(settings) as running:
        yield running


def signed(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """Sign by the documentation: timestamp in milliseconds + method + path, RSA-PSS with SHA-256, base64."""
    timestamp = str(time.time_ns() // 1_000_000)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    signature = key.sign((timestamp + "GET" + WS_PATH).encode(), pss, hashes.SHA256())
    return {
        "KALSHI-ACCESS-KEY": KEY_ID,
        "KALSHI-ACCESS-TIMESTAMP": timestamp,
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
    }


class Heard(ClientConnection):
    """A connection that remembers the payloads of pings; the library answers them by itself."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pings: list[bytes] = []
        self.pinged = asyncio.Event()

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings.append(bytes(event.data))
            self.pinged.set()
        super().process_event(event)


@asynccontextmanager
async def opened(server: SimulatorServer, headers: dict[str, str]) -> AsyncIterator[Heard]:
    async with connect(
        server.ws_url, additional_headers=headers, create_connection=Heard, ping_interval=None,
        max_size=None, proxy=None,
    ) as socket:  # fmt: skip
        assert isinstance(socket, Heard)
        yield socket


def units(text: str, decimals: int) -> int:
    """A decimal string in units of 10**-decimals, exactly."""
    whole, _, fraction = text.lstrip("-").partition(".")
    value = int(whole + fraction.ljust(decimals, "0"))
    return -value if text.startswith("-") else value


def apply(books: Books, frame: dict[str, Any]) -> None:
    """Follow one message of the order-book channel."""
    body = frame["msg"]
    if frame["type"] == "orderbook_snapshot":
        books[body["market_ticker"]] = {
            side: {
                units(price, 5): units(size, 2)
                for price, size in body.get(f"{side}_dollars_fp", ())
            }
            for side in ("yes", "no")
        }
    elif frame["type"] == "orderbook_delta":
        levels = books[body["market_ticker"]][body["side"]]
        price = units(body["price_dollars"], 5)
        size = levels.pop(price, 0) + units(body["delta_fp"], 2)
        assert size >= 0
        if size:
            levels[price] = size


async def follow(socket: Heard, books: Books, raw: list[str]) -> dict[str, Any]:
    """Receive one frame, keep its text, apply it, return it."""
    text = await socket.recv()
    assert isinstance(text, str)
    raw.append(text)
    frame: dict[str, Any] = json.loads(text)
    apply(books, frame)
    return frame


async def test_snapshots_and_deltas_rebuild_the_exchanges_books(
    server: SimulatorServer, key: rsa.RSAPrivateKey
) -> None:
    """Every frame is one line, every seq follows the last, and at the end all books are those of /control/books."""
    _, listed = await get(f"{server.rest_url}/markets?limit=1000")
    tickers = [market["ticker"] for market in listed["markets"]]
    books: Books = {}
    raw: list[str] = []
    async with asyncio.timeout(60), opened(server, signed(key)) as socket:
        params = {"channels": ["orderbook_delta"], "market_tickers": tickers}
        await socket.send(json.dumps({"id": 1, "cmd": "subscribe", "params": params}))

        deltas = 0
        while deltas < DELTAS:
            deltas += (await follow(socket, books, raw))["type"] == "orderbook_delta"
        await server.stop_publishing()
        _, truth = await get(f"{server.control_url}/books")
        await socket.send(json.dumps({"id": 2, "cmd": "list_subscriptions"}))
        while (await follow(socket, books, raw)).get("id") != 2:
            pass
    frames = [json.loads(text) for text in raw]
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in raw)
    assert (frames[0]["id"], frames[0]["type"]) == (1, "subscribed")
    assert frames[0]["msg"] == {"channel": "orderbook_delta", "sid": 1}
    counted = [frame["seq"] for frame in frames if frame["type"].startswith("orderbook_")]
    assert counted == list(range(1, len(counted) + 1))
    expected = {
        book["ticker"]: {side: dict(map(tuple, book[side])) for side in ("yes", "no")}
        for book in truth["books"]
        if book["ticker"] in books
    }
    assert books.keys() == set(tickers)
    assert books == expected


async def test_the_exchange_pings_with_a_payload(
    server: SimulatorServer, key: rsa.RSAPrivateKey
) -> None:
    """`heartbeat`, again and again, and a client that answers stays connected."""
    async with asyncio.timeout(60), opened(server, signed(key)) as socket:
        for _ in range(3):
            await socket.pinged.wait()
            socket.pinged.clear()
        await socket.send(json.dumps({"id": 1, "cmd": "list_subscriptions"}))
        assert json.loads(await socket.recv())["id"] == 1
    assert set(socket.pings) == {b"heartbeat"}
    assert len(socket.pings) >= 3


async def test_a_loss_shows_in_the_numbers_and_snapshots_repair_it(
    server: SimulatorServer, key: rsa.RSAPrivateKey
) -> None:
    """kalshi-api.md 3.9: after a gap, get_snapshot for the markets of that sid, in its own sequence, heals every book."""
    _, listed = await get(f"{server.rest_url}/markets?limit=1000")
    tickers = [market["ticker"] for market in listed["markets"]]
    frames: list[dict[str, Any]] = []

    async def follow_until(enough: Callable[[dict[str, Any]], bool]) -> None:
        while not enough(frame := json.loads(await socket.recv())):
            frames.append(frame)
        frames.append(frame)

    async with asyncio.timeout(60), opened(server, signed(key)) as socket:
        params: dict[str, Any] = {"channels": ["orderbook_delta"], "market_tickers": tickers}
        await socket.send(json.dumps({"id": 1, "cmd": "subscribe", "params": params}))
        await follow_until(lambda frame: frame["type"] == "orderbook_delta")
        server.simulation.inject(Drop(count_max=5, share=0.5), server.clock.now())
        numbers: list[int] = []
        while numbers[-1:] != [len(numbers) + 5]:
            await follow_until(lambda frame: frame["type"] == "orderbook_delta")
            numbers = [frame["seq"] for frame in frames if "seq" in frame]
        params = {"sid": 1, "action": "get_snapshot", "market_tickers": tickers}
        await socket.send(json.dumps({"id": 2, "cmd": "update_subscription", "params": params}))
        await follow_until(lambda frame: frame.get("id") == 2)
        await server.stop_publishing()
        _, truth = await get(f"{server.control_url}/books")
        await socket.send(json.dumps({"id": 3, "cmd": "list_subscriptions"}))
        await follow_until(lambda frame: frame.get("id") == 3)
    first = next(place for place, frame in enumerate(frames) if frame.get("id") == 2)
    books: Books = {}
    for frame in frames[first:]:
        if frame.get("msg") and (
            frame["type"] == "orderbook_snapshot" or books.keys() >= set(tickers)
        ):
            apply(books, frame)
    repaired = [f["seq"] for f in frames[first:] if f["type"].startswith("orderbook_")]
    assert repaired == list(range(repaired[0], repaired[0] + len(repaired)))
    assert books == {
        book["ticker"]: {side: dict(map(tuple, book[side])) for side in ("yes", "no")}
        for book in truth["books"]
        if book["ticker"] in tickers
    }
