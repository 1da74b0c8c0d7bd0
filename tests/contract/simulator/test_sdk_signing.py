"""The exchange's own SDK signs, the simulator verifies: neither was written by the other's author.

The SDK of 2025 cannot read today's answers (its models want cents), so its calls that do not parse are used.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kalshi_python_sync import KalshiClient
from kalshi_python_sync.configuration import Configuration

from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.support.keys import KeyPair, make_key


@contextmanager
def sdk(server: SimulatorServer, key_id: str, signing: KeyPair) -> Iterator[Any]:
    """Make the SDK's client, signing as one key id with the private key of `signing`."""
    configuration = Configuration(host=server.rest_url, retries=0)
    configuration.api_key_id = key_id
    configuration.private_key_pem = signing.private_key_file.read_text()
    client = KalshiClient(configuration)  # type: ignore[no-untyped-call]
    try:
        yield client
    finally:
        client.rest_client.pool_manager.clear()


def read(call: Any, **params: Any) -> tuple[int, Any]:
    """Make an unparsed call."""
    response = call(**params)
    return response.status, json.loads(response.data)


def account_limits(client: Any) -> tuple[int, Any]:
    """Ask for what this SDK has no method for, by its own way of signing and sending."""
    request = client.param_serialize(method="GET", resource_path="/account/limits")
    response = client.call_api(*request)
    return response.status, json.loads(response.read())


async def test_the_sdk_signs_and_the_simulator_agrees(tmp_path: Path) -> None:
    """kalshi-api 2 and 6: RSA-PSS over time, method and path without its query, for endpoints with and without a need."""
    key = make_key(tmp_path)
    settings = SimulatorSettings(port=0, keys=(key.settings,), markets=12)
    async with running_simulator(settings) as server:
        with sdk(server, key.key_id, key) as client:
            status, body = await asyncio.to_thread(account_limits, client)
            assert (status, body["usage_tier"]) == (200, "basic")
            status, body = await asyncio.to_thread(
                read, client.get_markets_without_preload_content, limit=3, status="open"
            )
            assert (status, len(body["markets"])) == (200, 3)
            ticker = body["markets"][0]["ticker"]
            status, body = await asyncio.to_thread(
                read, client.get_market_orderbook_without_preload_content, ticker=ticker, depth=5
            )
            assert (status, set(body)) == (200, {"orderbook_fp"})
            parsed = await asyncio.to_thread(client.get_exchange_status)
            assert parsed.trading_active in (True, False)


@pytest.mark.parametrize(
    ("is_known", "details"), [(True, "INCORRECT_API_KEY_SIGNATURE"), (False, "NOT_FOUND")]
)
async def test_a_wrong_key_is_refused(tmp_path: Path, is_known: bool, details: str) -> None:
    """kalshi-api 1.4: another key's signature, and a key id nobody has, are 401; the read itself needed no key."""
    key, other = make_key(tmp_path, "one"), make_key(tmp_path, "other")
    settings = SimulatorSettings(port=0, keys=(key.settings,), markets=12)
    async with running_simulator(settings) as server:
        with sdk(server, key.key_id if is_known else other.key_id, other) as client:
            for status, body in (
                await asyncio.to_thread(account_limits, client),
                await asyncio.to_thread(read, client.get_markets_without_preload_content, limit=3),
            ):
                assert status == 401
                assert body["error"]["code"] == "authentication_error"
                assert body["error"]["details"] == details
