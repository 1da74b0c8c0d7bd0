"""A small client of the exchange for these tests, signing by the rule of the documentation and not by our libraries."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from services.simulator.server import SimulatorServer
from tests.support.keys import KeyPair

WS_PATH = "/trade-api/ws/v2"


def signed(
    key: KeyPair, path: str = WS_PATH, skew_ms: int = 0, key_id: str = "", method: str = "GET"
) -> dict[str, str]:
    """Return the three headers of a signed request."""
    private = serialization.load_pem_private_key(key.private_key_file.read_bytes(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    timestamp = str(time.time_ns() // 1_000_000 + skew_ms)
    signature = private.sign(
        f"{timestamp}{method}{path}".encode(),
        padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32),
        hashes.SHA256(),
    )
    return {
        "KALSHI-ACCESS-KEY": key_id or key.key_id,
        "KALSHI-ACCESS-TIMESTAMP": timestamp,
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
    }


@dataclass
class Client:
    """One websocket and every frame it received, in order."""

    socket: aiohttp.ClientWebSocketResponse
    frames: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    async def send(self, **command: Any) -> None:
        await self.socket.send_str(json.dumps(command))

    async def subscribe(self, *channels: str, **params: Any) -> None:
        await self.send(id=1, cmd="subscribe", params={"channels": list(channels), **params})

    async def until(self, is_enough: Callable[[dict[str, Any]], bool], timeout: float = 60) -> None:  # noqa: ASYNC109
        """Receive until a frame is enough."""
        async with asyncio.timeout(timeout):
            while True:
                text = await self.socket.receive_str()
                self.raw.append(text)
                frame = json.loads(text)
                self.frames.append(frame)
                if is_enough(frame):
                    return

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Receive some frames and return them."""
        before = len(self.frames)
        await self.until(lambda _: len(self.frames) >= before + count)
        return self.frames[before:]

    def of_type(self, message_type: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["type"] == message_type]


@asynccontextmanager
async def connected(server: SimulatorServer, key: KeyPair) -> AsyncIterator[Client]:
    """Open a signed websocket."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(server.ws_url, headers=signed(key), max_msg_size=0) as socket,
    ):
        yield Client(socket)


async def get(url: str, **kwargs: Any) -> tuple[int, Any]:
    """GET a JSON answer: status and body."""
    async with aiohttp.ClientSession() as http, http.get(url, **kwargs) as response:
        return response.status, json.loads(await response.read())
