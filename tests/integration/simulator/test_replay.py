"""Replay of real recordings: every recorded data frame reaches who subscribed, renumbered or verbatim."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from libs.marketdata.units import PRICE_ONE, format_price, parse_price
from services.simulator.server import running_simulator
from services.simulator.settings import ReplaySettings, SimulatorSettings
from tests.integration.simulator.client import connected, get
from tests.support.keys import KeyPair

Make = Callable[..., SimulatorSettings]
FILES = (
    "ws-demo-samples-2026-08-17a.jsonl",
    "ws-demo-samples-2026-08-17b.jsonl",
    "ws-prod-samples-2026-08-20.jsonl",
    "fortuna-demo-2026-06-11/ws__orderbook_trade_noleg.jsonl",
    "fortuna-demo-2026-06-11/ws__orderbook_trade_yes.jsonl",
)
DATA = ("orderbook_snapshot", "orderbook_delta", "ticker", "trade")


def recorded_frames(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [line.get("frame", line) for line in lines if "command" not in line]


def says_yes_price(path: Path) -> bool:
    """Orientation as the recorder asked for it, in the file or beside it."""
    meta = path.with_suffix(".meta.json")
    if meta.exists():
        return bool(json.loads(meta.read_text())["subscribe_cmd"]["params"]["use_yes_price"])
    return True


def turned(message: dict[str, Any], is_delta: bool) -> dict[str, Any]:
    """Put the no side on the other scale, independently of the simulator's own code."""
    other = {price: format_price(PRICE_ONE - parse_price(price)) for price in _no_prices(message)}
    if is_delta:
        price = message["price_dollars"]
        return message | {"price_dollars": other.get(price, price)}
    if "no_dollars_fp" not in message:
        return message
    levels = [[other[price], size] for price, size in message["no_dollars_fp"]]
    return message | {"no_dollars_fp": levels}


def _no_prices(message: dict[str, Any]) -> list[str]:
    if message.get("side") == "no":
        return [message["price_dollars"]]
    return [price for price, _ in message.get("no_dollars_fp", [])]


def by_market(frames: list[dict[str, Any]], message_type: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for frame in frames:
        if frame["type"] == message_type:
            found.setdefault(frame["msg"]["market_ticker"], []).append(frame["msg"])
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("wanted", [False, True])
async def test_every_recorded_frame_arrives(
    settings: Make, key: KeyPair, recorded: Path, name: str, wanted: bool
) -> None:
    """Each market's recorded snapshots, deltas, tickers and trades come whole and in order, on the asked scale."""
    path = recorded / name
    says = says_yes_price(path)
    made = settings(replay=ReplaySettings(file=str(path), use_yes_price=says))
    data = [frame for frame in recorded_frames(path) if frame["type"] in DATA]
    async with running_simulator(made) as server, connected(server, key) as client:
        _, body = await get(f"{server.rest_url}/markets?limit=1000")
        named = [market["ticker"] for market in body["markets"]]
        assert set(named) == {frame["msg"]["market_ticker"] for frame in data}
        await client.subscribe("orderbook_delta", market_tickers=named, use_yes_price=wanted)
        await client.subscribe("ticker", "trade")
        await client.until(lambda _: all(_arrived(client.frames, data, kind) for kind in DATA[1:]))
    for kind in DATA:
        expected = by_market(data, kind)
        if says != wanted and kind.startswith("orderbook"):
            is_delta = kind == "orderbook_delta"
            expected = {
                ticker: [turned(message, is_delta) for message in messages]
                for ticker, messages in expected.items()
            }
        heard = by_market(client.frames, kind)
        for ticker, messages in expected.items():
            # A market recorded without a first snapshot is given one; a recorded one is never lost.
            assert heard[ticker][-len(messages) :] == messages
    for sid in (1, 3):
        numbers = [frame["seq"] for frame in client.frames if frame.get("sid") == sid]
        assert numbers == list(range(1, len(numbers) + 1))
    assert not any("sending_ts_ms" in frame for frame in client.frames)


def _arrived(heard: list[dict[str, Any]], data: list[dict[str, Any]], kind: str) -> bool:
    counts = [sum(frame["type"] == kind for frame in frames) for frames in (heard, data)]
    return bool(counts[0] == counts[1])


async def test_verbatim_keeps_sid_and_seq(settings: Make, key: KeyPair, recorded: Path) -> None:
    """Verbatim: the recorded envelopes, holes in seq and the recorded error frame included."""
    path = recorded / FILES[0]
    replay = ReplaySettings(file=str(path), verbatim=True)
    frames = [frame for frame in recorded_frames(path) if frame["type"] in (*DATA, "error")]
    async with (
        running_simulator(settings(replay=replay)) as server,
        connected(server, key) as client,
    ):
        _, body = await get(f"{server.rest_url}/markets?limit=1000")
        named = [market["ticker"] for market in body["markets"]]
        await client.subscribe(
            "orderbook_delta", "ticker", "trade", market_tickers=named, use_yes_price=True
        )
        await client.take(len(frames) + 3)
    heard = [frame for frame in client.frames if frame["type"] != "subscribed"]
    for sid in (1, 2, 3):
        assert [f for f in heard if f.get("sid") == sid] == [f for f in frames if f["sid"] == sid]


async def test_recorded_pace(settings: Make, key: KeyPair, tmp_path: Path) -> None:
    """With speed 1 a frame recorded 300 ms later is sent 300 ms later; markets added later begin anew."""
    lines = [
        {
            "recv_at": f"2026-08-17T08:49:57.{millis:03d}000+00:00",
            "ordinal": number,
            "frame": {
                "type": "orderbook_delta",
                "sid": 1,
                "seq": number,
                "msg": {
                    "market_ticker": ticker,
                    "market_id": "",
                    "price_dollars": "0.5000",
                    "delta_fp": "-1.00",
                    "side": "yes",
                    "ts_ms": 1_786_956_597_000 + millis,
                },
            },
        }
        for number, (millis, ticker) in enumerate([(0, "KXA-1"), (300, "KXA-1"), (0, "KXB-1")])
    ]
    file = tmp_path / "frames.jsonl"
    file.write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    made = settings(replay=ReplaySettings(file=str(file), speed=1.0))
    async with running_simulator(made) as server, connected(server, key) as client:
        begin = server.clock.monotonic()
        await client.subscribe("orderbook_delta", market_ticker="KXA-1")
        await client.take(3)
        opening = client.frames[1]["msg"]
        # The least book the recorded deltas fit on.
        assert opening["yes_dollars_fp"] == [["0.5000", "2.00"]]
        await client.take(1)
        assert 0.2 < server.clock.monotonic() - begin < 2
        await client.subscribe("orderbook_delta", market_ticker="KXB-1")
        frames = await client.take(3)
        assert [frame["type"] for frame in frames] == [
            "subscribed",
            "orderbook_snapshot",
            "orderbook_delta",
        ]
        assert frames[2]["seq"] == 5
