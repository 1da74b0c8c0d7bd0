"""The REST interface over a socket, held against what the exchange was recorded to answer."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from libs.marketdata.units import parse_rfc3339
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.client import signed
from tests.support.keys import KeyPair, make_key

RECORDED = Path(__file__).parents[3] / ".." / "shared" / "kalshi" / "recorded"
DEMO = RECORDED / "fortuna-demo-2026-06-11"
LIMITS = "/trade-api/v2/account/limits"

pytestmark = pytest.mark.skipif(not DEMO.is_dir(), reason="no recordings beside the repository")


def recorded(name: str) -> Any:
    return json.loads((DEMO / f"{name}.json").read_text())


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return make_key(tmp_path)


@pytest.fixture
async def exchange(key: KeyPair) -> AsyncIterator[SimulatorServer]:
    """A small exchange with a Basic account."""
    settings = SimulatorSettings(port=0, keys=(key.settings,), markets=30, rate=500.0)
    async with running_simulator(settings) as server:
        yield server


async def ask(
    server: SimulatorServer, path: str, headers: dict[str, str] | None = None, **kwargs: Any
) -> tuple[int, Any, dict[str, str]]:
    """GET (or `method`): status, JSON body, headers in small letters."""
    method = kwargs.pop("method", "GET")
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, server.rest_url + path, headers=headers, **kwargs) as response,
    ):
        found = {name.lower(): value for name, value in response.headers.items()}
        return response.status, json.loads(await response.read()), found


async def test_a_limit_over_the_maximum(exchange: SimulatorServer) -> None:
    """kalshi-api 1.4: limit=1001 is answered word for word as recorded."""
    status, body, _ = await ask(exchange, "/markets?limit=1001")
    assert (status, body) == (400, recorded("markets__limit_over_max"))


async def test_a_garbage_cursor(exchange: SimulatorServer) -> None:
    """kalshi-api 1.5: as recorded, garbage is answered with exactly the first page."""
    assert recorded("markets__garbage_cursor") == recorded("markets__page1")
    garbage = await ask(exchange, "/markets?limit=5&cursor=garbage-cursor-fixture")
    status, body, _ = await ask(exchange, "/markets?limit=5")
    assert (status, len(body["markets"])) == (200, 5)
    assert [m["ticker"] for m in garbage[1]["markets"]] == [m["ticker"] for m in body["markets"]]
    assert garbage[1]["cursor"] == body["cursor"] != ""


async def test_the_last_page_has_an_empty_cursor(exchange: SimulatorServer) -> None:
    """kalshi-api 1.5: present and empty, as recorded for a single market."""
    assert recorded("markets__single_filter_lastpage")["cursor"] == ""
    _, page, _ = await ask(exchange, "/markets?limit=1")
    ticker = page["markets"][0]["ticker"]
    _, body, _ = await ask(exchange, f"/markets?tickers={ticker}")
    assert body["cursor"] == ""
    assert [market["ticker"] for market in body["markets"]] == [ticker]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("auth__skew_minus30s", {"skew_ms": -30_000}),
        ("auth__skew_minus5min", {"skew_ms": -300_000}),
        ("auth__skew_plus5min", {"skew_ms": 300_000}),
        ("auth__unknown_key_id", {"key_id": "00000000-0000-0000-0000-000000000000"}),
        ("auth__bad_signature", {"path": "/trade-api/v2/something/else"}),
    ],
)
async def test_refused_signatures(
    exchange: SimulatorServer, key: KeyPair, name: str, change: dict[str, Any]
) -> None:
    """kalshi-api 1.4 and 2: 401 word for word as recorded, also where no signature would have been needed."""
    headers = signed(key, **({"path": LIMITS} | change))
    for path in ("/account/limits", "/markets?limit=1"):
        if path != "/account/limits" and "path" not in change:
            headers = signed(key, **({"path": "/trade-api/v2/markets"} | change))
        status, body, _ = await ask(exchange, path, headers)
        assert (status, body) == (401, recorded(name)), path


@pytest.mark.parametrize("skew_ms", [-5_000, 5_000])
async def test_a_few_seconds_are_accepted(
    exchange: SimulatorServer, key: KeyPair, skew_ms: int
) -> None:
    """kalshi-api 2: a clock that is 5 s off may sign."""
    status, _, _ = await ask(exchange, "/account/limits", signed(key, LIMITS, skew_ms))
    assert status == 200


async def test_a_missing_signature(exchange: SimulatorServer, key: KeyPair) -> None:
    """kalshi-api 1.4: 401 as recorded, with one header missing and with all of them."""
    headers = signed(key, LIMITS)
    del headers["KALSHI-ACCESS-SIGNATURE"]
    for given in (headers, None):
        status, body, _ = await ask(exchange, "/account/limits", given)
        assert (status, body) == (401, recorded("auth__missing_signature_header"))


async def test_the_account_says_its_limits(exchange: SimulatorServer, key: KeyPair) -> None:
    """kalshi-api 1.3: the recorded keys and tier, with a read bucket of 2 s as documented later."""
    status, body, _ = await ask(exchange, "/account/limits", signed(key, LIMITS))
    then = recorded("account__limits")
    assert status == 200
    assert body == then | {"read": {"refill_rate": 200, "bucket_capacity": 400}}


async def test_endpoint_costs_are_those_recorded(exchange: SimulatorServer) -> None:
    """kalshi-api 1.2 and 1.3: public, default cost 10, the exceptions of June 2026."""
    status, body, _ = await ask(exchange, "/account/endpoint_costs")
    assert (status, body) == (200, recorded("account__endpoint_costs"))


async def test_too_many_signed_reads(exchange: SimulatorServer, key: KeyPair) -> None:
    """kalshi-api 1.3: 429 in both bodies and without Retry-After, while others may still read."""
    bodies: list[Any] = []
    headers = signed(key, "/trade-api/v2/exchange/status")
    async with aiohttp.ClientSession() as http:
        while len(bodies) < 2:
            async with http.get(exchange.rest_url + "/exchange/status", headers=headers) as answer:
                assert "Retry-After" not in answer.headers
                assert not any(name.lower().startswith("x-ratelimit") for name in answer.headers)
                if answer.status == 429:
                    bodies.append(await answer.json())
    assert bodies == [
        {"error": "too many requests"},
        {"error": {"code": "too_many_requests", "message": "too many requests"}},
    ]
    status, _, _ = await ask(exchange, "/exchange/status")
    assert status == 200


async def test_market_reads_come_through_a_cache(exchange: SimulatorServer, key: KeyPair) -> None:
    """kalshi-api 1.3: the headers on signed and unsigned market reads, none on the exchange's status."""
    for path in ("/markets?limit=1", "/markets/trades", "/series", "/events"):
        for headers in (None, signed(key, "/trade-api/v2" + path.partition("?")[0])):
            _, _, found = await ask(exchange, path, headers)
            assert found["cache-control"] == "public, max-age=15"
            assert found["x-kalshi-cache-hits"].isdecimal()
    _, _, found = await ask(exchange, "/exchange/status")
    assert "x-kalshi-cache-hits" not in found


async def test_malformed_json(exchange: SimulatorServer, key: KeyPair) -> None:
    """kalshi-api 1.4: the second shape, flat, is the answer to a body that is no JSON; unsigned it is 401."""
    path = "/portfolio/orders"
    headers = signed(key, f"/trade-api/v2{path}", method="POST")
    status, body, _ = await ask(exchange, path, headers, method="POST", data=b"{not json")
    assert (status, set(body)) == (400, {"code", "message", "details"})
    headers = signed(key, f"/trade-api/v2{path}", method="POST")
    status, body, _ = await ask(exchange, path, headers, method="POST", data=b"{}")
    assert (status, set(body)) == (404, {"error"})
    status, _, _ = await ask(exchange, path, method="POST", data=b"{}")
    assert status == 401


async def test_trades_have_the_recorded_fields(exchange: SimulatorServer) -> None:
    """kalshi-api 1.8: the fields of a production trade of 2026-08, and times as it writes them."""
    samples = json.loads((RECORDED / "rest-prod-samples-2026-08-24.json").read_text())
    while not exchange.exchange.tape:
        exchange.publish_once()
    _, body, _ = await ask(exchange, "/markets/trades?limit=1")
    trade = body["trades"][0]
    assert set(trade) == set(samples["trade"])
    for found in (trade, samples["trade"]):
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,5}[1-9])?Z", found["created_time"]
        )
        assert {type(value) for value in found.values()} == {str, bool}


async def test_books_have_the_recorded_shape(exchange: SimulatorServer) -> None:
    """kalshi-api 1.6: pairs of decimal strings, 4 decimals and 2, ascending, best last, as in a recorded book."""
    sample = recorded("orderbook__base")
    _, page, _ = await ask(exchange, "/markets?limit=20")
    names = "&".join(f"tickers={market['ticker']}" for market in page["markets"])
    _, body, _ = await ask(exchange, f"/markets/orderbooks?{names}")
    books = [sample, *body["orderbooks"]]
    levels = 0
    for book in books:
        assert set(book["orderbook_fp"]) == set(sample["orderbook_fp"])
        for side in book["orderbook_fp"].values():
            prices = [float(price) for price, _ in side]
            assert prices == sorted(prices)
            for price, size in side:
                assert re.fullmatch(r"[01]\.\d{4}", price)
                assert re.fullmatch(r"\d+\.\d\d", size)
                levels += 1
    assert levels > 20


async def test_a_listed_market_has_the_recorded_types(exchange: SimulatorServer) -> None:
    """kalshi-api 1.7: every field that a production market has too is of the same type."""
    samples = json.loads((RECORDED / "rest-prod-samples-2026-08-24.json").read_text())
    _, body, _ = await ask(exchange, "/markets?limit=30")
    for market in body["markets"]:
        common = set(market) & set(samples["market"])
        assert len(common) > 30
        assert {name: type(market[name]) for name in common} == {
            name: type(samples["market"][name]) for name in common
        }
        for name in ("created_time", "updated_time", "open_time", "close_time"):
            assert parse_rfc3339(market[name]) > 0
