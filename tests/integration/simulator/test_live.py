"""The simulator on real sockets: who gets in, and whether what it sends rebuilds what it journals."""

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from libs.marketdata.units import PRICE_ONE, SECOND, parse_price, parse_size
from libs.runtime.clock import SystemClock
from services.simulator.book import Book
from services.simulator.model import market_journal
from services.simulator.plan import ModelPlan
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.client import WS_PATH, Client, connected, get, signed
from tests.support.keys import KeyPair

Make = Callable[..., SimulatorSettings]

OPENS_IN_S = 6


async def tickers(server: SimulatorServer) -> list[str]:
    _, body = await get(f"{server.rest_url}/markets?limit=1000")
    return [market["ticker"] for market in body["markets"]]


async def stop(server: SimulatorServer) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.post(f"{server.control_url}/stop") as answer:
        body: dict[str, Any] = json.loads(await answer.read())
        return body


async def journal(server: SimulatorServer, name: str) -> tuple[bytes, list[dict[str, Any]]]:
    url = f"{server.control_url}/journal/{name}"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        raw = await answer.read()
    return raw, [json.loads(line) for line in raw.splitlines()]


def rebuild(frames: list[dict[str, Any]], use_yes_price: bool = False) -> dict[str, Book]:
    """Rebuild every book from the frames; a later snapshot must equal the book it finds."""
    books: dict[str, Book] = {}
    for frame in frames:
        message = frame.get("msg", {})
        if frame["type"] == "orderbook_snapshot":
            book = Book()
            for side, name in ((True, "yes_dollars_fp"), (False, "no_dollars_fp")):
                for price, size in message.get(name, []):
                    own = (
                        PRICE_ONE - parse_price(price)
                        if use_yes_price and not side
                        else parse_price(price)
                    )
                    book.apply(side, own, parse_size(size))
            known = books.setdefault(message["market_ticker"], book)
            assert (known.yes, known.no) == (book.yes, book.no)
        elif frame["type"] == "orderbook_delta":
            side = message["side"] == "yes"
            price = parse_price(message["price_dollars"])
            own = PRICE_ONE - price if use_yes_price and not side else price
            size = books[message["market_ticker"]].apply(side, own, parse_size(message["delta_fp"]))
            assert size >= 0
    return books


async def follow_to_the_end(server: SimulatorServer, client: Client) -> dict[str, Any]:
    """Stop the simulator and receive all it had to say; every sid must have had a last frame."""
    end = await stop(server)
    await client.send(id=77, cmd="list_subscriptions")
    await client.until(lambda frame: frame.get("id") == 77)
    last = {frame["sid"]: frame["sending_ts_ms"] for frame in client.frames if "sid" in frame}
    assert len(last) == len(client.of_type("subscribed"))
    assert min(last.values()) * 1000 >= end["final_ts"]
    return end


async def test_signed_reads(settings: Make, key: KeyPair, stranger: KeyPair) -> None:
    """A signed read is answered, query string excluded from the signature; a badly signed one is not."""
    async with running_simulator(settings()) as server:
        path = "/trade-api/v2/account/limits"
        status, body = await get(f"{server.rest_url}/account/limits", headers=signed(key, path))
        assert (status, body["read"]["refill_rate"]) == (200, 200)
        path = "/trade-api/v2/markets"
        url = f"{server.rest_url}/markets?limit=1"
        assert (await get(url, headers=signed(key, path)))[0] == 200
        assert (await get(url, headers=signed(stranger, path)))[0] == 401
        assert (await get(url))[0] == 200


@pytest.mark.parametrize("use_yes_price", [False, True])
async def test_books_rebuilt_from_frames_equal_the_simulators(
    settings: Make, key: KeyPair, use_yes_price: bool
) -> None:
    """Snapshots, deltas and re-snapshots rebuild exactly the books of /control/books, with no seq missing."""
    async with running_simulator(settings()) as server, connected(server, key) as client:
        named = await tickers(server)
        await client.subscribe(
            "orderbook_delta", market_tickers=named[:12], use_yes_price=use_yes_price
        )
        await client.until(lambda frame: frame["type"] == "orderbook_delta")
        await client.send(
            id=2,
            cmd="update_subscription",
            params={"sid": 1, "action": "add_markets", "market_tickers": named[12:]},
        )
        await client.until(lambda frame: frame.get("seq", 0) > 200)
        await client.send(
            id=3,
            cmd="update_subscription",
            params={"sid": 1, "action": "get_snapshot", "market_tickers": named},
        )
        await follow_to_the_end(server, client)
        await client.send(
            id=4,
            cmd="update_subscription",
            params={"sid": 1, "action": "get_snapshot", "market_tickers": named},
        )
        await client.take(len(named))
        books = rebuild(client.frames, use_yes_price)
        _, body = await get(f"{server.control_url}/books")
        truth = {record["ticker"]: record for record in body["books"]}
        for ticker in named:
            assert [list(level) for level in books[ticker].ladder(True)] == truth[ticker]["yes"]
            assert [list(level) for level in books[ticker].ladder(False)] == truth[ticker]["no"]
        numbered = [frame["seq"] for frame in client.frames if frame.get("sid") == 1]
        assert numbered == list(range(1, len(numbered) + 1))
        assert all(text.endswith("}\n") for text in client.raw)


async def test_market_journal_is_what_the_model_says(settings: Make, key: KeyPair) -> None:
    """After stop the journal on disk is, byte for byte, the pure function of seed, epoch and length."""
    made = settings(rate=2_000.0)
    async with running_simulator(made) as server, connected(server, key) as client:
        await client.subscribe("trade")
        await client.until(lambda frame: frame.get("seq", 0) >= 20)
        end = await stop(server)
        assert await stop(server) == end
        raw, lines = await journal(server, "market")
    plan = ModelPlan.of(made)
    assert raw == market_journal(plan, end["epoch"], end["end_ts"], end["final_ts"])
    assert sum(line["kind"] == "delta" for line in lines) == end["published"]["delta"]


async def test_every_channel_carries_the_journals_facts(settings: Make, key: KeyPair) -> None:
    """Two connections hear the same deltas in the same order, and all trades, tickers and lifecycle facts."""
    # Both are there before the first order, also on a busy machine.
    opening = (SystemClock().now() // SECOND + OPENS_IN_S) * SECOND
    async with (
        running_simulator(settings(epoch_us=opening)) as server,
        connected(server, key) as first,
        connected(server, key) as second,
    ):
        named = await tickers(server)
        for client in (first, second):
            await client.subscribe("orderbook_delta", market_tickers=named)
            await client.subscribe(
                "ticker", "trade", "market_lifecycle_v2", "multivariate_market_lifecycle"
            )
            await client.until(
                lambda frame: frame["type"] == "subscribed" and frame["msg"]["sid"] == 5
            )
        await first.until(lambda frame: frame["type"] == "ticker")
        await follow_to_the_end(server, first)
        await second.send(id=78, cmd="list_subscriptions")
        await second.until(lambda frame: frame.get("id") == 78)
        _, lines = await journal(server, "market")
        _, session = await journal(server, "session")
    deltas = [frame["msg"] for frame in first.of_type("orderbook_delta")]
    assert deltas == [frame["msg"] for frame in second.of_type("orderbook_delta")]
    heard = set(named)
    told = [
        (line["ticker"], line["exchange_ts"], line["side"], line["price"], line["size_delta"])
        for line in lines
        if line["kind"] == "delta" and line["ticker"] in heard
    ]
    assert told == [
        (
            delta["market_ticker"],
            delta["ts_ms"] * 1000,
            delta["side"] == "yes",
            parse_price(delta["price_dollars"]),
            parse_size(delta["delta_fp"]),
        )
        for delta in deltas
    ]
    for client in (first, second):
        for kind, message_type in (("trade", "trade"), ("ticker", "ticker")):
            count = sum(line["kind"] == kind for line in lines)
            assert len(client.of_type(message_type)) == count > 0
        lifecycle = [line["body"] for line in lines if line["kind"] == "lifecycle"]
        sent = [f["msg"] for f in client.frames if f.get("sid") in (4, 5) and "seq" in f]
        assert sent == lifecycle
    snapshots = [line for line in session if line["kind"] == "snapshot"]
    assert len(snapshots) == 2 * len(named)
    assert {line["ticker"] for line in session if line["kind"] == "final_book"} >= heard
    assert [line["kind"] for line in session if line["kind"] in ("opened", "end")] == [
        "opened",
        "opened",
        "end",
    ]


async def test_deltas_are_sent_soon_and_never_before_their_time(
    settings: Make, key: KeyPair
) -> None:
    """ts_ms <= sending_ts_ms < ts_ms + 1 s, and sending times never go back."""
    async with (
        running_simulator(settings(rate=2_000.0)) as server,
        connected(server, key) as client,
    ):
        await client.subscribe("orderbook_delta", market_tickers=await tickers(server))
        await client.until(lambda frame: frame.get("seq", 0) > 2_000)
    for frame in client.of_type("orderbook_delta"):
        assert 0 <= frame["sending_ts_ms"] - frame["msg"]["ts_ms"] < 1_000
    assert all(a["sending_ts_ms"] <= b["sending_ts_ms"] for a, b in pairwise(client.frames))


async def test_slow_client_dies_alone(settings: Make, key: KeyPair) -> None:
    """A client that does not read overflows its bound; the others hear everything in time."""
    made = settings(rate=3_000.0, outbound_bytes_max=200_000)
    async with running_simulator(made) as server, connected(server, key) as good:
        named = await tickers(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        headers = "".join(f"{name}: {value}\r\n" for name, value in signed(key).items())
        upgrade = (
            f"GET {WS_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        )
        command = json.dumps(
            {
                "id": 1,
                "cmd": "subscribe",
                "params": {"channels": ["orderbook_delta"], "market_tickers": named},
            }
        ).encode()
        masked = (
            b"\x81" + bytes([0x80 | 126]) + len(command).to_bytes(2, "big") + b"\0\0\0\0" + command
        )
        writer.write(upgrade.encode() + masked)
        await good.subscribe("orderbook_delta", market_tickers=named)
        await good.until(
            lambda _: any(line.overflows for line in server.simulation.lines.values()), 60
        )
        assert server.simulation.lines[1].overflows == 0
        assert len(server.exchange.sessions[1].subscriptions) == 1
        slow = server.simulation.lines.get(2)
        assert slow is None or slow.session.subscriptions == {}
        for frame in good.of_type("orderbook_delta"):
            assert frame["sending_ts_ms"] - frame["msg"]["ts_ms"] < 1_000
        writer.close()
        del reader


async def test_rest_pages(settings: Make) -> None:
    """Cursors lead through all markets once; a garbage cursor is the first page; an excess limit is refused."""
    async with running_simulator(settings(new_market_every_s=0.0)) as server:
        url = f"{server.rest_url}/markets"
        whole = await tickers(server)
        found: list[str] = []
        cursor = ""
        while True:
            _, body = await get(url, params={"limit": 7, "cursor": cursor})
            found += [market["ticker"] for market in body["markets"]]
            cursor = body["cursor"]
            if not cursor:
                break
        assert found == whole
        assert len(whole) == 20
        garbage = await get(url, params={"limit": 3, "cursor": "not-a-cursor"})
        assert [market["ticker"] for market in garbage[1]["markets"]] == whole[:3]
        status, body = await get(url, params={"limit": 1001})
        assert (status, list(body)) == (400, ["msg"])
        assert (await get(url, params={"status": "active"}))[0] == 400
        _, one = await get(url, params={"tickers": ",".join(whole[:2]), "status": "open"})
        assert {market["ticker"] for market in one["markets"]} == set(whole[:2])
        status, body = await get(f"{url}/KXNO-1")
        assert (status, body["error"]["code"]) == (404, "not_found")


async def test_rest_books_and_trades(settings: Make, key: KeyPair) -> None:
    """Books by REST equal the control interface's; the tape is newest first and pages without loss."""
    async with (
        running_simulator(settings(rate=2_000.0)) as server,
        connected(server, key) as client,
    ):
        await client.subscribe("trade")
        await client.until(lambda frame: frame.get("seq", 0) >= 40)
        await follow_to_the_end(server, client)
        named = await tickers(server)
        params = [("tickers", ticker) for ticker in named[:3]]
        _, body = await get(f"{server.rest_url}/markets/orderbooks", params=params)
        truth = {book["ticker"]: book for book in server.books()}
        assert [book["ticker"] for book in body["orderbooks"]] == named[:3]
        for book in body["orderbooks"]:
            for side in ("yes", "no"):
                levels = [
                    (parse_price(price), parse_size(size))
                    for price, size in book["orderbook_fp"][f"{side}_dollars"]
                ]
                assert tuple(levels) == truth[book["ticker"]][side]
        too_many = [("tickers", "A")] * 101
        assert (await get(f"{server.rest_url}/markets/orderbooks", params=too_many))[0] == 400
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            url = f"{server.rest_url}/markets/trades"
            _, body = await get(url, params={"limit": 9, "cursor": cursor})
            found += body["trades"]
            cursor = body["cursor"]
            if not cursor:
                break
        heard = [frame["msg"]["trade_id"] for frame in client.of_type("trade")]
        assert [trade["trade_id"] for trade in found][: len(heard)] == heard[::-1]
        ticker = found[0]["ticker"]
        _, body = await get(url, params={"ticker": ticker, "limit": 1000})
        assert body["trades"] == [trade for trade in found if trade["ticker"] == ticker]
