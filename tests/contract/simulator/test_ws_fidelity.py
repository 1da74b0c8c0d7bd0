"""The websocket as it really behaves: one test for each thing a capture has to live with.

Every test names the section of reference/kalshi-api.md it reproduces. What is about bytes is played in virtual time, what
is about the wire goes over real sockets to a client that is not ours (`websockets`).

Shown elsewhere: that books rebuilt from frames are the exchange's and that a ping carries its payload on the wire
(test_independent_client), that frames fit the exchange's own AsyncAPI (test_specification), what a market does: equal
deltas in one millisecond, many deltas in one, fine prices and sizes (tests/unit/simulator/test_model).
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from libs.marketdata.units import PRICE_ONE, SECOND, parse_price, parse_rfc3339
from services.simulator import rest_objects
from services.simulator.faults import menu
from services.simulator.instruments import STRUCTURES
from services.simulator.line import Ping
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.contract.simulator.play import Heard, Play
from tests.integration.simulator.client import signed
from tests.support.keys import KeyPair, make_key

BOOKS = "orderbook_delta"
LIFECYCLE = "market_lifecycle_v2"
COMBOS = "multivariate_market_lifecycle"


def books(play: Play, **params: Any) -> Heard:
    """Connect and subscribe the books of every market."""
    heard = play.connect()
    heard.subscribe(BOOKS, market_tickers=play.tickers, **params)
    return heard


def error(frames: list[dict[str, Any]]) -> tuple[int, int | None, int | None]:
    """Return code, sid and seq of the one error among the frames."""
    (frame,) = [frame for frame in frames if frame["type"] == "error"]
    return frame["msg"]["code"], frame.get("sid"), frame.get("seq")


# --- numbers ---


def test_every_frame_with_a_sid_takes_a_number_of_that_sid() -> None:
    """3.3, 3.9: seq counts per sid over all its markets; ok, error and unsubscribed take numbers between the data."""
    play = Play()
    heard = books(play)
    heard.subscribe("trade")
    play.wait(1)
    answers = heard.update("delete_markets", market_tickers=play.tickers[:1])
    answers += heard.update("fly", sid=2)
    play.wait(1)
    answers += heard.send(id=9, cmd="unsubscribe", params={"sids": [1, 2]})
    play.wait(1)
    assert [frame["type"] for frame in answers] == ["ok", "error", "unsubscribed", "unsubscribed"]
    for sid in (1, 2):
        numbers = heard.numbers(sid)
        assert numbers == list(range(1, len(numbers) + 1))
        own = [frame["seq"] for frame in answers if frame["sid"] == sid]
        assert own[-1] == numbers[-1] > own[0] > 1
        around = {frame["seq"] for frame in heard.of(BOOKS, "trade") if frame["sid"] == sid}
        assert {own[0] - 1, own[0] + 1} <= around


def test_subscribed_says_its_sid_only_inside() -> None:
    """3.3: no top-level sid, no seq; one answer and one sid for each channel of the command."""
    play = Play()
    frames = play.connect().subscribe("ticker", "trade")
    assert [{key: frame.get(key) for key in ("type", "id", "sid", "seq", "msg")} for frame in frames] == [
        {"type": "subscribed", "id": 1, "sid": None, "seq": None, "msg": {"channel": name, "sid": sid}}
        for sid, name in ((1, "ticker"), (2, "trade"))
    ]  # fmt: skip


def test_all_channels_are_answered_before_the_first_snapshot() -> None:
    """3.2, 3.5: as in every recording: one `subscribed` for each channel, then the snapshots, sorted by ticker."""
    play = Play()
    tickers = play.tickers[:12]
    assert tickers != sorted(tickers)
    frames = play.connect().subscribe(BOOKS, "ticker", "trade", market_tickers=tickers)
    assert [frame["type"] for frame in frames] == ["subscribed"] * 3 + ["orderbook_snapshot"] * 12
    assert [frame["msg"]["channel"] for frame in frames[:3]] == [BOOKS, "ticker", "trade"]
    assert [frame["msg"]["market_ticker"] for frame in frames[3:]] == sorted(tickers)
    assert [frame["seq"] for frame in frames[3:]] == list(range(1, 13))


def test_tickers_have_no_number() -> None:
    """3.6: no ticker frame has a seq; what is lost there cannot be seen."""
    play = Play()
    heard = play.connect()
    heard.subscribe("ticker")
    play.wait(3)
    assert len(heard.of("ticker")) > 30
    assert not any("seq" in frame for frame in heard.of("ticker"))


def test_tickers_come_in_one_burst_a_second() -> None:
    """3.6: all of a second's tickers at one moment of it, at most one for each market, with older times inside."""
    play = Play()
    heard = play.connect()
    heard.subscribe("ticker")
    play.wait(5)
    bursts: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for frame in heard.of("ticker"):
        bursts[frame["sending_ts_ms"]].append(frame["msg"])
    times = sorted(bursts)
    assert len(times) >= 4
    assert {after - before for before, after in pairwise(times)} == {1000}
    for sent, burst in bursts.items():
        named = [message["market_ticker"] for message in burst]
        assert len(set(named)) == len(named) > 1
        assert all(message["ts_ms"] <= sent for message in burst)
    assert any(message["ts_ms"] < sent - 100 for sent, burst in bursts.items() for message in burst)


# --- books ---


def test_a_side_without_levels_has_no_key() -> None:
    """3.5: a snapshot leaves out the ladder of an empty side; an empty list never comes."""
    play = Play(markets=300)
    heard = books(play)
    listings = play.simulation.exchange.listings
    missing = 0
    for frame in heard.of("orderbook_snapshot"):
        book = listings[frame["msg"]["market_ticker"]].book
        for name, levels in (("yes_dollars_fp", book.yes), ("no_dollars_fp", book.no)):
            assert (name in frame["msg"]) == bool(levels)
            assert frame["msg"].get(name) != []
            missing += not levels
    assert missing > 5


def test_a_market_that_never_had_a_book_has_no_id() -> None:
    """3.5: its snapshot's market_id is an empty string; its ticker's and a later snapshot's is not."""
    play = Play(markets=300, rate=5_000.0, combo_share=0.0)
    heard = books(play)
    empty = [
        f["msg"]["market_ticker"]
        for f in heard.of("orderbook_snapshot")
        if not f["msg"]["market_id"]
    ]
    listings = play.simulation.exchange.listings
    assert empty
    assert all(listings[ticker].book.is_empty for ticker in empty)
    play.until(lambda: any(listings[ticker].position for ticker in empty))
    traded = next(ticker for ticker in empty if listings[ticker].position)
    (frame,) = heard.update("get_snapshot", market_tickers=[traded])
    assert frame["msg"]["market_id"] == listings[traded].instrument.market_id != ""


def test_the_text_of_a_time_is_trimmed() -> None:
    """3.5, 3.8: `ts` has 0 to 3 digits of fraction, no trailing zero, and is exactly ts_ms."""
    play = Play(rate=3_000.0)
    heard = books(play)
    play.wait(3)
    digits = set()
    for frame in heard.of(BOOKS):
        text = frame["msg"]["ts"]
        assert parse_rfc3339(text) == frame["msg"]["ts_ms"] * 1000
        fraction = text.removesuffix("Z").partition(".")[2]
        assert not fraction.endswith("0")
        assert "." not in text or fraction
        digits.add(len(fraction))
    assert digits >= {1, 2, 3}


@pytest.mark.parametrize("use_yes_price", [False, True])
def test_no_prices_stand_on_the_scale_that_was_asked_for(use_yes_price: bool) -> None:
    """3.5: with use_yes_price a no bid at 0.30 reads 0.70, in snapshots and deltas; without it each leg has its own."""
    play = Play()
    heard = books(play, use_yes_price=use_yes_price)
    openings = {line["ticker"]: line for line in play.journal("created")}
    ladders = 0
    for frame in heard.of("orderbook_snapshot"):
        message = frame["msg"]
        for side in ("yes", "no"):
            turned = use_yes_price and side == "no"
            prices = [parse_price(price) for price, _ in message.get(f"{side}_dollars_fp", ())]
            own = [price for price, _ in openings[message["market_ticker"]][side]]
            assert prices == [PRICE_ONE - price if turned else price for price in own]
            ladders += bool(own)
    assert ladders > 30
    play.wait(2)
    sent = [
        (m["market_ticker"], m["ts_ms"], m["side"], parse_price(m["price_dollars"]))
        for m in (frame["msg"] for frame in heard.of(BOOKS))
    ]
    named = set(heard.line.session.subscriptions[1].tickers or ())
    made = [
        (d["ticker"], d["exchange_ts"] // 1000, "yes" if d["side"] else "no",
         PRICE_ONE - d["price"] if use_yes_price and not d["side"] else d["price"])
        for d in play.journal("delta")
        if d["ticker"] in named
    ]  # fmt: skip
    assert sent == made
    assert {side for _, _, side, _ in sent} == {"yes", "no"}


# --- commands ---


def test_get_snapshot_names_its_markets_and_stands_in_the_stream() -> None:
    """3.2, 3.3: error 14 without tickers, 13 on another channel; else one numbered snapshot each, with the id."""
    play = Play()
    heard = books(play)
    heard.subscribe("trade")
    play.wait(1)
    assert error(heard.update("get_snapshot"))[:2] == (14, 1)
    assert error(heard.update("get_snapshot", sid=2, market_tickers=play.tickers[:1]))[:2] == (
        13,
        2,
    )
    last = heard.numbers(1)[-1]
    frames = heard.update("get_snapshot", market_tickers=play.tickers[:3])
    assert [(f["type"], f["id"], f["seq"], f["msg"]["market_ticker"]) for f in frames] == [
        ("orderbook_snapshot", 2, last + place, ticker) for place, ticker in enumerate(play.tickers[:3], 1)
    ]  # fmt: skip
    listings = play.simulation.exchange.listings
    for frame in frames:
        shown = frame["msg"].get("yes_dollars_fp", [])
        ladder = listings[frame["msg"]["market_ticker"]].book.ladder(True)
        assert [parse_price(price) for price, _ in shown] == [price for price, _ in ladder]


def test_markets_come_and_go_in_the_stream() -> None:
    """3.2, 3.3: `ok` with the full list takes a number, the new markets' snapshots follow; a removed one falls silent."""
    play = Play()
    heard = play.connect()
    first, second = play.tickers[:12], play.tickers[12:24]
    heard.subscribe(BOOKS, market_tickers=first)
    play.wait(1)
    last = heard.numbers(1)[-1]
    frames = heard.update("add_markets", market_tickers=second)
    assert [frame["type"] for frame in frames] == ["ok"] + ["orderbook_snapshot"] * 12
    assert [frame["seq"] for frame in frames] == list(range(last + 1, last + 14))
    assert frames[0]["msg"]["market_tickers"] == first + second
    play.wait(1)
    (frame,) = heard.update("delete_markets", market_tickers=first)
    assert (frame["type"], frame["msg"]["market_tickers"]) == ("ok", second)
    before = len(heard.raw)
    play.wait(2)
    later = {frame["msg"]["market_ticker"] for frame in heard.frames[before:]}
    assert later
    assert later <= set(second)


def test_subscribing_again_adds_to_what_is_there() -> None:
    """3.2: the same sid answers, known markets are ignored, new ones get their snapshot in the same sequence."""
    play = Play()
    heard = play.connect()
    heard.subscribe(BOOKS, market_tickers=play.tickers[:2])
    frames = heard.subscribe(BOOKS, market_tickers=play.tickers[1:3])
    assert [(f["type"], f.get("seq")) for f in frames] == [
        ("subscribed", None),
        ("orderbook_snapshot", 3),
    ]
    assert frames[0]["msg"]["sid"] == 1
    assert frames[1]["msg"]["market_ticker"] == play.tickers[2]
    (listed,) = heard.send(id=3, cmd="list_subscriptions")
    assert listed["msg"] == [{"channel": BOOKS, "sid": 1}]


def test_what_cannot_be_subscribed_is_numbered() -> None:
    """3.3, 3.4: error 8 for a channel that does not exist, 14 for books without tickers; nothing is subscribed."""
    heard = Play().connect()
    assert error(heard.subscribe("market_lifecycle")) == (8, None, None)
    assert error(heard.subscribe("trade", "ticker_v2")) == (8, None, None)
    assert error(heard.subscribe(BOOKS)) == (14, None, None)
    assert heard.send(id=3, cmd="list_subscriptions")[0]["msg"] == []


def test_an_unknown_market_is_an_empty_book() -> None:
    """3.3: error 16 is retired; a ticker nobody knows gives an empty snapshot."""
    frames = Play().connect().subscribe(BOOKS, market_tickers=["KXNOBODY-1"])
    assert frames[1]["msg"] == {"market_ticker": "KXNOBODY-1", "market_id": ""}


@pytest.mark.parametrize("code", [10, 25])
def test_terminal_errors_end_a_subscription(code: int) -> None:
    """3.3: 10 and 25 carry sid and the next seq, and nothing comes on that sid again; subscribing anew gets a new sid."""
    play = Play()
    heard = books(play)
    heard.subscribe("trade")
    play.wait(1)
    play.inject(menu.Error(code=code, on=menu.On(channel=BOOKS)))
    last = heard.numbers(1)[-1]
    assert error(heard.frames) == (code, 1, last)
    play.wait(1)
    assert heard.numbers(1)[-1] == last
    assert heard.of("trade")[-1]["sending_ts_ms"] > heard.of("error")[0]["sending_ts_ms"]
    frames = heard.subscribe(BOOKS, market_tickers=play.tickers[:1])
    assert (frames[0]["msg"]["sid"], frames[1]["seq"]) == (3, 1)


@pytest.mark.parametrize("code", [26, 27])
def test_a_command_can_be_one_too_many(code: int) -> None:
    """3.1, 3.3: 26 (markets of a subscription) and 27 (commands a second) refuse the command and end nothing."""
    limit = {"subscription_markets_max": 10} if code == 26 else {"commands_per_s_max": 2}
    play = Play(**limit)
    heard = play.connect()
    heard.subscribe(BOOKS, market_tickers=play.tickers[:10])
    heard.update("get_snapshot", market_tickers=play.tickers[:1])
    last = heard.numbers(1)[-1]
    assert error(heard.update("add_markets", market_tickers=play.tickers[10:11])) == (
        code,
        1,
        last + 1,
    )
    play.wait(1.5)
    assert len(heard.of(BOOKS)) > 10
    assert heard.numbers(1) == list(range(1, len(heard.numbers(1)) + 1))
    (again,) = heard.update("get_snapshot", market_tickers=play.tickers[:1])
    assert again["type"] == "orderbook_snapshot"


# --- lifecycle ---


def test_opening_and_closing_are_not_announced() -> None:
    """3.7: nothing is said at open_time nor at close_time, though the status changes; the next word is `determined`."""
    play = Play()
    heard = play.connect()
    heard.subscribe(LIFECYCLE, COMBOS)
    play.wait(14)
    told: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for frame in heard.of(LIFECYCLE, COMBOS):
        sent = frame["sending_ts_ms"] * 1000
        told[frame["msg"]["market_ticker"]].append((frame["msg"]["event_type"], sent))
    listings = play.simulation.exchange.listings
    closed = {line["ticker"]: line["at"] for line in play.journal("closed")}
    born = [line for line in play.journal("created") if not line["initial"]]
    opened = [line for line in born if line["open_at"] + SECOND < play.now]
    assert len(opened) > 5
    for ticker, at in ((line["ticker"], line["open_at"]) for line in opened):
        assert told[ticker][0][0] == "created"
        if ticker not in closed:
            assert listings[ticker].status(at - 1) == "initialized"
            assert listings[ticker].status(at) in ("active", "inactive")
        assert not any(at <= sent < at + SECOND for _, sent in told[ticker])
    assert len(closed) > 5
    for ticker, at in closed.items():
        after = [event for event, sent in told[ticker] if sent >= at and event != "activated"]
        assert not any(
            at <= sent < at + SECOND for event, sent in told[ticker] if event != "activated"
        )
        assert after in ([], ["determined"], ["determined", "settled"])
    assert sum(told[ticker][-1][0] == "settled" for ticker in closed) > 3


def test_the_price_grid_of_a_live_market_changes() -> None:
    """3.7, 1.10: the message has name and ranges; orders come on the new grid afterwards, and REST shows it."""
    play = Play(combo_share=0.0, closing_share=0.0)
    heard = books(play)
    heard.subscribe(LIFECYCLE)
    grids: dict[str, Any] = {}
    orders = 0
    play.wait(10)
    for frame in heard.frames:
        message = frame["msg"]
        if message.get("event_type") == "price_level_structure_updated":
            structure = STRUCTURES[message["price_level_structure"]]
            grids[message["market_ticker"]] = structure
            steps = [
                (parse_price(r["start"]), parse_price(r["end"]), parse_price(r["step"]))
                for r in message["price_ranges"]
            ]
            assert steps == [(band.start, band.end, band.step) for band in structure.ranges]
        elif frame["type"] == BOOKS and message["market_ticker"] in grids:
            assert grids[message["market_ticker"]].holds(parse_price(message["price_dollars"]))
            orders += 1
    assert len(grids) > 5
    assert orders > 100
    for ticker, structure in grids.items():
        shown = json.loads(rest_objects.market(play.simulation.exchange.listings[ticker], play.now))
        assert shown["price_level_structure"] == structure.name
        assert parse_price(shown["price_ranges"][0]["step"]) == structure.ranges[0].step


def test_combos_have_a_channel_of_their_own() -> None:
    """3.4, 3.7: KXMVE markets are told of on their channel only, without price ranges; they trade like all others."""
    play = Play(combo_share=0.4)
    heard = books(play)
    heard.subscribe(LIFECYCLE, COMBOS, "trade", "ticker")
    play.wait(8)
    plain, combos = (
        {frame["msg"]["market_ticker"] for frame in heard.of(channel)}
        for channel in (LIFECYCLE, COMBOS)
    )
    assert plain
    assert not any(ticker.startswith("KXMVE") for ticker in plain)
    assert combos
    assert all(ticker.startswith("KXMVE") for ticker in combos)
    assert not any("price_ranges" in frame["msg"] for frame in heard.of(COMBOS))
    assert {frame["sid"] for frame in heard.of(COMBOS)} == {3}
    for kind in (BOOKS, "trade", "ticker"):
        assert any(frame["msg"]["market_ticker"].startswith("KXMVE") for frame in heard.of(kind)), (
            kind
        )


def test_block_trades_are_marked() -> None:
    """3.4, 3.7: blocks come on the tape with is_block_trade; every other trade shares its ts_ms with a delta (3.8)."""
    play = Play(rate=4_000.0)
    heard = books(play)
    heard.subscribe("trade")
    play.wait(3)
    moments = {(frame["msg"]["market_ticker"], frame["msg"]["ts_ms"]) for frame in heard.of(BOOKS)}
    marked = [frame["msg"]["is_block_trade"] for frame in heard.of("trade")]
    assert {True, False} == set(marked)
    known = set(heard.line.session.subscriptions[1].tickers or ())
    for message in (frame["msg"] for frame in heard.of("trade")):
        if not message["is_block_trade"] and message["market_ticker"] in known:
            assert (message["market_ticker"], message["ts_ms"]) in moments


# --- frames ---


def test_every_frame_says_when_it_was_sent() -> None:
    """3.8: sending_ts_ms at the top of answers, errors and data alike; not before the event's ts_ms, and never back."""
    play = Play()
    heard = books(play)
    heard.subscribe("ticker", "trade", LIFECYCLE, COMBOS)
    play.wait(4)
    heard.update("delete_markets", market_tickers=play.tickers[:1])
    heard.send(id=5, cmd="fly")
    heard.send(id=6, cmd="list_subscriptions")
    heard.send(id=7, cmd="unsubscribe", params={"sids": [1]})
    kinds = {frame["type"] for frame in heard.frames}
    assert kinds >= {
        "subscribed",
        "ok",
        "error",
        "unsubscribed",
        "orderbook_snapshot",
        BOOKS,
        "ticker",
        "trade",
        LIFECYCLE,
    }
    sent = [frame["sending_ts_ms"] for frame in heard.frames]
    assert sent == sorted(sent)
    for frame in heard.of(BOOKS, "trade", "ticker"):
        assert frame["msg"]["ts_ms"] <= frame["sending_ts_ms"]


def test_time_never_goes_back_within_a_market_until_the_clock_steps() -> None:
    """3.8: ts_ms of one market ascends; a step of the exchange's clock breaks that, and sending_ts_ms knows nothing of it."""
    play = Play()
    heard = books(play)

    def steps_back() -> int:
        last: dict[str, int] = {}
        found = 0
        for message in (frame["msg"] for frame in heard.of(BOOKS)):
            found += message["ts_ms"] < last.get(message["market_ticker"], 0)
            last[message["market_ticker"]] = message["ts_ms"]
        return found

    play.wait(2)
    assert steps_back() == 0
    play.inject(menu.ClockStep(by_ms=-1_500))
    play.wait(1)
    assert steps_back() > 0
    sent = [frame["sending_ts_ms"] for frame in heard.frames]
    assert sent == sorted(sent)


def test_a_ping_every_ten_seconds() -> None:
    """3.1: a ping with the payload `heartbeat` every 10 s, whatever else is sent."""
    play = Play(rate=1.0)
    heard = play.connect()
    begin = play.now // 1000
    play.wait(31)
    assert [(at - begin, action) for at, action in heard.others] == [
        (at, Ping(b"heartbeat")) for at in (10_000, 20_000, 30_000)
    ]


# --- the wire ---


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A key the exchange knows."""
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
async def server(key: KeyPair) -> AsyncIterator[SimulatorServer]:
    """A lively exchange on real sockets that pings often."""
    settings = SimulatorSettings(
        port=0,
        markets=12,
        rate=400.0,
        new_market_every_s=0.0,
        quiet_ms=50,
        ping_s=0.05,
        keys=(key.settings,),
    )
    async with running_simulator(settings) as running:
        yield running


@asynccontextmanager
async def opened(
    server: SimulatorServer, headers: dict[str, str]
) -> AsyncIterator[ClientConnection]:
    async with (
        asyncio.timeout(60),
        connect(
            server.ws_url, additional_headers=headers, ping_interval=None, proxy=None
        ) as socket,
    ):
        yield socket


async def refusal(server: SimulatorServer, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return status and body of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with opened(server, headers):
            pass
    response = caught.value.response
    return response.status_code, bytes(response.body or b"")


async def test_frames_end_with_a_newline(server: SimulatorServer, key: KeyPair) -> None:
    """3.1: every text frame, answer or data, is one JSON object and one newline at its end."""
    async with opened(server, signed(key)) as socket:
        params = {"channels": [BOOKS], "market_tickers": list(server.exchange.listings)}
        await socket.send(json.dumps({"id": 1, "cmd": "subscribe", "params": params}))
        await socket.send('{"id":2,"cmd":"fly"}')
        texts = [str(await socket.recv()) for _ in range(60)]
    assert all(text.endswith("}\n") and text.count("\n") == 1 for text in texts)
    assert {json.loads(text)["type"] for text in texts} >= {
        "subscribed",
        "orderbook_snapshot",
        BOOKS,
        "error",
    }


@pytest.mark.parametrize(
    ("kind", "code", "details"),
    [
        ("unsigned", "signature_is_missing_from_headers", None),
        ("late", "header_timestamp_expired", None),
        ("early", "header_timestamp_expired", None),
        ("unknown", "authentication_error", "NOT_FOUND"),
        ("forged", "authentication_error", "INCORRECT_API_KEY_SIGNATURE"),
        ("other path", "authentication_error", "INCORRECT_API_KEY_SIGNATURE"),
    ],
)
async def test_the_upgrade_must_be_signed(
    server: SimulatorServer, key: KeyPair, kind: str, code: str, details: str | None
) -> None:
    """2, 1.4: 401 before there is a websocket, with the code of what is wrong: nothing, the clock, the key, the text."""
    headers = {
        "unsigned": {},
        "late": signed(key, skew_ms=-30_000),
        "early": signed(key, skew_ms=60_000),
        "unknown": signed(key, key_id="nobody"),
        "forged": signed(key) | {"KALSHI-ACCESS-SIGNATURE": "AAAA"},
        "other path": signed(key, path="/trade-api/v2/markets"),
    }[kind]
    status, body = await refusal(server, headers)
    told = json.loads(body)["error"]
    assert (status, told["code"], told.get("details")) == (401, code, details)
    async with opened(server, signed(key, skew_ms=-4_000)) as socket:
        await socket.send('{"id":1,"cmd":"list_subscriptions"}')
        assert json.loads(await socket.recv())["type"] == "ok"


async def test_502_instead_of_a_websocket_for_a_while(
    server: SimulatorServer, key: KeyPair
) -> None:
    """3.1: an HTML page with status 502 answers the upgrade; afterwards it works again."""
    server.simulation.inject(menu.Refuse(status=502, for_s=3600), server.clock.now())
    status, body = await refusal(server, signed(key))
    assert (status, body.lstrip()[:5].lower()) == (502, b"<html")
    server.simulation.faults.close(server.clock.now())
    async with opened(server, signed(key)) as socket:
        await socket.send('{"id":1,"cmd":"list_subscriptions"}')
        assert json.loads(await socket.recv())["type"] == "ok"


async def test_connections_break_without_a_close_frame(
    server: SimulatorServer, key: KeyPair
) -> None:
    """3.1: a reset reads as 1006, no close frame was received, and the client can come back at once."""
    async with opened(server, signed(key)) as socket:
        await socket.send('{"id":1,"cmd":"subscribe","params":{"channels":["trade"]}}')
        await socket.recv()
        server.simulation.inject(menu.Reset(), server.clock.now())
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                await socket.recv()
        assert caught.value.rcvd is None
        assert socket.close_code == 1006
    async with opened(server, signed(key)) as socket:
        await socket.send('{"id":1,"cmd":"list_subscriptions"}')
        assert json.loads(await socket.recv())["msg"] == []
