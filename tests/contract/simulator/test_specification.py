"""What the simulator sends, held against the exchange's own AsyncAPI and OpenAPI."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.client import connected, get, signed
from tests.support.keys import make_key

SPECS = Path(__file__).parents[3] / ".." / "shared" / "kalshi" / "specs"
ASYNCAPI = SPECS / "asyncapi-2026-08-22.yaml"
OPENAPI = SPECS / "openapi-3.28.0-marketdata-reassembled-2026-08-22.yaml"

pytestmark = pytest.mark.skipif(
    not SPECS.is_dir(), reason="no specifications beside the repository"
)

PAYLOADS = {
    "subscribed": "subscribedResponsePayload",
    "unsubscribed": "unsubscribedResponsePayload",
    "ok": "okResponsePayload",
    "error": "errorResponsePayload",
    "orderbook_snapshot": "orderbookSnapshotPayload",
    "orderbook_delta": "orderbookDeltaPayload",
    "ticker": "tickerPayload",
    "trade": "tradePayload",
    "market_lifecycle_v2": "marketLifecycleV2Payload",
    "event_lifecycle": "eventLifecyclePayload",
    "event_fee_update": "eventFeeUpdatePayload",
}
EVENT_TYPES = (
    "created", "determined", "settled", "deactivated", "activated", "close_date_updated", "metadata_updated",
    "price_level_structure_updated",
)  # fmt: skip
ENVELOPE_SINCE = {"sending_ts_ms", "seq", "sid", "id"}
"""Envelope keys that came after the saved specification (kalshi-api.md 3.10) or that it leaves out."""


@cache
def schemas(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text())["components"]["schemas"]
    assert isinstance(loaded, dict)
    return loaded


def closed(schema: Any) -> Any:
    """Forbid keys the specification does not know, and read OpenAPI's `nullable` as JSON Schema does."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if found.get("type") == "object" and "properties" in found:
        found.setdefault("additionalProperties", False)
    if found.pop("nullable", False):
        return {"anyOf": [found, {"type": "null"}]}
    return found


def check(path: Path, name: str, body: Any) -> None:
    """Validate a body against a component schema with nothing unknown in it."""
    components = relaxed(str(path))
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": components}}
    jsonschema.Draft202012Validator(schema).validate(body)


@cache
def relaxed(path: str) -> dict[str, Any]:
    found = copy.deepcopy(schemas(Path(path)))
    if "marketTicker" in found:
        found["marketTicker"].pop("pattern", None)
    if "EventData" in found:
        # Removed from the exchange on 2026-09-10.
        found["EventData"]["required"].remove("available_on_brokers")
    made: dict[str, Any] = closed(found)
    for name, schema in made.items():
        if name.endswith("Payload") and "properties" in schema:
            schema["properties"] |= dict.fromkeys(ENVELOPE_SINCE, True) | schema["properties"]
    if "errorResponsePayload" in made:
        made["okResponsePayload"]["properties"]["msg"] = {
            "anyOf": [
                made["okResponsePayload"]["properties"]["msg"],
                made["listSubscriptionsResponsePayload"]["properties"]["msg"],
            ]
        }
    if "Market" in made:
        made["Market"]["properties"]["settlement_bounds_type"] = {"enum": ["default", "floor"]}
        made["Series"]["properties"]["categories"] = {"type": "array"}
    return made


@pytest.fixture
def world(tmp_path: Path) -> tuple[SimulatorSettings, Any]:
    """A world in which everything happens within seconds."""
    key = make_key(tmp_path)
    settings = SimulatorSettings(
        port=0,
        keys=(key.settings,),
        markets=24,
        rate=500.0,
        new_market_every_s=0.2,
        closing_share=0.5,
        close_after_s_min=0.5,
        close_after_s_max=1.5,
        pause_every_s=0.3,
        news_every_s=0.05,
        combo_share=0.2,
        quiet_ms=50,
    )
    return settings, key


async def test_frames_fit_the_asyncapi(world: tuple[SimulatorSettings, Any]) -> None:
    """Every frame of every type validates; nothing unknown is in it."""
    settings, key = world
    async with running_simulator(settings) as server, connected(server, key) as client:
        _, body = await get(f"{server.rest_url}/markets?limit=1000")
        named = [market["ticker"] for market in body["markets"]]
        await client.subscribe("orderbook_delta", market_tickers=named)
        await client.subscribe("ticker", "trade", "market_lifecycle_v2")
        await client.send(id=2, cmd="list_subscriptions")
        await client.send(
            id=3,
            cmd="update_subscription",
            params={"sid": 1, "action": "delete_markets", "market_tickers": named[:1]},
        )
        await client.send(id=4, cmd="update_subscription", params={"sid": 3, "action": "fly"})
        await client.send(id=5, cmd="fly")
        missing = {*PAYLOADS, *EVENT_TYPES} - {"unsubscribed"}

        def is_enough(frame: dict[str, Any]) -> bool:
            missing.discard(frame["type"])
            if frame["type"] == "market_lifecycle_v2":
                missing.discard(frame["msg"]["event_type"])
            return not missing

        await client.until(is_enough, 20)
        await client.send(id=6, cmd="unsubscribe", params={"sids": [1]})
        await client.until(lambda frame: frame["type"] == "unsubscribed")
    assert {frame["type"] for frame in client.frames} == set(PAYLOADS)
    for frame in client.frames:
        check(ASYNCAPI, PAYLOADS[frame["type"]], frame)


async def test_combo_lifecycle_fits_the_asyncapi(world: tuple[SimulatorSettings, Any]) -> None:
    """The multivariate channel's frame has the same fields, minus price ranges."""
    settings, key = world
    async with running_simulator(settings) as server, connected(server, key) as client:
        await client.subscribe("multivariate_market_lifecycle")
        await client.until(lambda frame: frame["type"] == "subscribed")
        await server.stop_publishing()
        await client.until(lambda frame: frame["type"] == "multivariate_market_lifecycle")
    frame = client.frames[-1]
    assert "price_ranges" not in frame["msg"]
    check(ASYNCAPI, "marketLifecycleV2Payload", frame | {"type": "market_lifecycle_v2"})


async def _rest(server: SimulatorServer, key: Any) -> list[tuple[str, str]]:
    base = server.rest_url
    _, markets = await get(f"{base}/markets?limit=1000")
    one = markets["markets"][-1]  # the oldest: a new one is not found at once
    series = one["event_ticker"].split("-")[0]
    return [
        ("ExchangeStatus", "/exchange/status"),
        ("GetExchangeScheduleResponse", "/exchange/schedule"),
        ("GetSeriesListResponse", "/series"),
        ("GetSeriesResponse", f"/series/{series}"),
        ("GetEventsResponse", "/events?limit=3"),
        ("GetEventsResponse", "/events?with_nested_markets=true"),
        ("GetMultivariateEventsResponse", "/events/multivariate"),
        ("GetEventResponse", f"/events/{one['event_ticker']}"),
        ("GetMarketsResponse", "/markets?limit=1000"),
        ("GetMarketsResponse", "/markets?status=settled"),
        ("GetMarketResponse", f"/markets/{one['ticker']}"),
        ("GetMarketOrderbookResponse", f"/markets/{one['ticker']}/orderbook?depth=2"),
        ("GetMarketOrderbooksResponse", f"/markets/orderbooks?tickers={one['ticker']}"),
        ("GetTradesResponse", "/markets/trades?limit=50"),
        ("GetAccountApiLimitsResponse", "/account/limits"),
        ("GetAccountEndpointCostsResponse", "/account/endpoint_costs"),
        ("GetSeriesFeeChangesResponse", "/series/fee_changes"),
        ("GetEventsResponse", "/events?with_milestones=true"),
        ("GetMarketsResponse", "/markets?status=open&mve_filter=only"),
        ("GetHistoricalCutoffResponse", "/historical/cutoff"),
        ("GetMarketsResponse", "/historical/markets"),
        ("GetTradesResponse", "/historical/trades"),
    ]


async def test_rest_answers_fit_the_openapi(world: tuple[SimulatorSettings, Any]) -> None:
    """Every REST body validates; nothing unknown is in it but what came after the saved specification."""
    settings, key = world
    async with running_simulator(settings) as server, connected(server, key) as client:
        await client.subscribe("market_lifecycle_v2", "trade")
        await client.until(lambda frame: "settled" in json.dumps(frame), 20)
        await server.stop_publishing()
        for name, path in await _rest(server, key):
            headers = signed(key, f"/trade-api/v2{path.partition('?')[0]}")
            status, body = await get(server.rest_url + path, headers=headers)
            assert status == 200, (path, body)
            check(OPENAPI, name, body)
            if path == "/markets?status=settled":
                assert body["markets"]
                assert {market["status"] for market in body["markets"]} == {"finalized"}


async def test_the_status_of_a_pause_fits_the_openapi(world: tuple[SimulatorSettings, Any]) -> None:
    """kalshi-api 1.4 and 1.6: paused, with the time of the end, and as the body of a documented 503."""
    settings, _ = world
    async with running_simulator(settings) as server:
        server.exchange.pause = server.clock.now() + 60_000_000
        status, body = await get(f"{server.rest_url}/exchange/status")
        assert (status, body["trading_active"]) == (200, False)
        assert body["exchange_estimated_resume_time"].endswith("Z")
        check(OPENAPI, "ExchangeStatus", body)
        server.simulation.rest_trouble.begin("rest", {"status": 503})
        status, body = await get(f"{server.rest_url}/exchange/status")
        assert (status, body["exchange_active"]) == (503, False)
        check(OPENAPI, "ExchangeStatus", body)
