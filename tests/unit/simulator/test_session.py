"""The session core: one connection's commands, sids, sequence and error codes, without a socket."""

import json
from typing import Any

import pytest

from libs.marketdata.units import SECOND
from services.simulator.changes import Change, Created, Delta, Lifecycle, Ticker, TickerState, Trade
from services.simulator.exchange import Exchange
from services.simulator.instruments import DECI_CENT, Event, Instrument, Series
from services.simulator.session import Session

NOW_MS = 1_795_000_000_000
AT = NOW_MS * 1000
SERIES = Series("KXA", "A", "Sports", DECI_CENT)
EVENT = Event("KXA-1", SERIES, "A 1", "", AT)
BTC = Instrument("KXA-1-T1.99", "11111111-0000-0000-0000-000000000001", EVENT, "x", AT, AT, AT + 9)
ETH = Instrument("KXA-1-E", "11111111-0000-0000-0000-000000000002", EVENT, "y", AT, AT, AT + 9)
NEW = Instrument("KXA-1-N", "11111111-0000-0000-0000-000000000003", EVENT, "z", AT, AT, AT + 9)
STATE = TickerState(52_500, 52_500, 55_000, 100, 200, 300, 400, 500, 2, 2)


class Wire:
    """A session, its exchange, and the frames it was sent."""

    def __init__(self) -> None:
        self.notes: list[dict[str, Any]] = []
        self.exchange = Exchange(trades_kept=10)
        self.exchange.publish(
            [
                Created(AT, BTC, True, ((52_000, 300), (52_500, 4_703)), ((30_000, 200),)),
                Created(AT, ETH, True, ((40_000, 100),), ()),
                Created(AT, NEW, True),
            ],
            NOW_MS,
        )
        self.session = Session(1, self.exchange, self.notes.append)
        self.exchange.sessions[1] = self.session

    def send(self, **command: Any) -> list[dict[str, Any]]:
        return self.raw(json.dumps(command))

    def raw(self, text: str) -> list[dict[str, Any]]:
        self.session.receive(text, NOW_MS + 5)
        return self.frames()

    def publish(self, *changes: Change) -> list[dict[str, Any]]:
        self.exchange.publish(changes, NOW_MS + 9)
        return self.frames()

    def frames(self) -> list[dict[str, Any]]:
        raw = self.session.take_out()
        assert all(frame.endswith(b"}\n") for frame in raw)
        return [json.loads(frame) for frame in raw]

    def subscribe(self, *channels: str, **params: Any) -> list[dict[str, Any]]:
        return self.send(id=1, cmd="subscribe", params={"channels": list(channels), **params})

    def update(self, action: str, **params: Any) -> list[dict[str, Any]]:
        return self.send(id=2, cmd="update_subscription", params={"action": action, **params})


@pytest.fixture
def wire() -> Wire:
    return Wire()


def delta(instrument: Instrument, price: int, size: int, side: bool = True) -> Delta:
    return Delta(AT + 7_250, instrument, side, price, size, 1)


def trade() -> Trade:
    return Trade(AT, BTC, "f07ce770-37a9-7646-bc40-1e96c189d340", 10_000, 4_703, True)


def lifecycle(channel: str = "market_lifecycle_v2") -> Lifecycle:
    body: dict[str, object] = {"market_ticker": "KXA-1-E", "event_type": "activated"}
    return Lifecycle(AT, "KXA-1-E", channel, channel, "activated", body)


def kinds(frames: list[dict[str, Any]]) -> list[tuple[str, int | None]]:
    return [(frame["type"], frame.get("seq")) for frame in frames]


def test_subscribed_has_no_sid_at_the_top_and_takes_no_seq(wire: Wire) -> None:
    """One answer per channel, sids from 1, then the snapshots from seq 1."""
    frames = wire.subscribe("orderbook_delta", "trade", market_tickers=[BTC.ticker, ETH.ticker])
    assert frames[0] == {
        "type": "subscribed",
        "id": 1,
        "sending_ts_ms": NOW_MS + 5,
        "msg": {"channel": "orderbook_delta", "sid": 1},
    }
    assert kinds(frames) == [
        ("subscribed", None),
        ("subscribed", None),
        ("orderbook_snapshot", 1),
        ("orderbook_snapshot", 2),
    ]
    assert frames[1]["msg"] == {"channel": "trade", "sid": 2}


def test_snapshot_shows_both_bid_ladders(wire: Wire) -> None:
    """Prices in the bid's own leg, best level last, sizes with two decimals."""
    frames = wire.subscribe("orderbook_delta", market_ticker=BTC.ticker)
    assert frames[1] == {
        "type": "orderbook_snapshot",
        "sid": 1,
        "seq": 1,
        "sending_ts_ms": NOW_MS + 5,
        "msg": {
            "market_ticker": BTC.ticker,
            "market_id": BTC.market_id,
            "yes_dollars_fp": [["0.5200", "3.00"], ["0.5250", "47.03"]],
            "no_dollars_fp": [["0.3000", "2.00"]],
        },
    }


def test_empty_side_has_no_key_and_unknown_market_no_id(wire: Wire) -> None:
    """A side without levels has no key; an unknown ticker gives an empty snapshot, not an error."""
    frames = wire.subscribe("orderbook_delta", market_tickers=[ETH.ticker, "KXNO-1", NEW.ticker])
    books = {frame["msg"]["market_ticker"]: frame["msg"] for frame in frames[1:]}
    assert books[ETH.ticker].keys() == {"market_ticker", "market_id", "yes_dollars_fp"}
    assert books["KXNO-1"] == {"market_ticker": "KXNO-1", "market_id": ""}
    assert books[NEW.ticker] == {"market_ticker": NEW.ticker, "market_id": ""}


def test_yes_price_turns_the_no_side(wire: Wire) -> None:
    """With use_yes_price a no bid at 0.30 reads 0.70, in snapshots and deltas; a yes bid stays."""
    frames = wire.subscribe("orderbook_delta", market_ticker=BTC.ticker, use_yes_price=True)
    assert frames[1]["msg"]["no_dollars_fp"] == [["0.7000", "2.00"]]
    frames = wire.publish(delta(BTC, 30_000, -200, side=False), delta(BTC, 30_000, 5))
    assert [frame["msg"]["price_dollars"] for frame in frames] == ["0.7000", "0.3000"]


def test_delta_frame(wire: Wire) -> None:
    """A delta carries a signed change, ts with trimmed fraction, and ts_ms."""
    wire.subscribe("orderbook_delta", market_ticker=BTC.ticker)
    assert wire.publish(delta(BTC, 52_500, -4_703), delta(ETH, 1_000, 1)) == [
        {
            "type": "orderbook_delta",
            "sid": 1,
            "seq": 2,
            "sending_ts_ms": NOW_MS + 9,
            "msg": {
                "market_ticker": BTC.ticker,
                "market_id": BTC.market_id,
                "price_dollars": "0.5250",
                "delta_fp": "-47.03",
                "side": "yes",
                "ts": "2026-11-18T11:06:40.007Z",
                "ts_ms": NOW_MS + 7,
            },
        }
    ]


def test_seq_counts_over_all_markets_of_the_sid(wire: Wire) -> None:
    """Snapshots, deltas of any market, ok, error and unsubscribed share one sequence."""
    wire.subscribe("orderbook_delta", market_tickers=[BTC.ticker, ETH.ticker])
    assert kinds(wire.publish(delta(BTC, 1_000, 1), delta(ETH, 1_000, 1))) == [
        ("orderbook_delta", 3),
        ("orderbook_delta", 4),
    ]
    frames = wire.update("add_markets", sid=1, market_tickers=[NEW.ticker])
    assert kinds(frames) == [("ok", 5), ("orderbook_snapshot", 6)]
    assert frames[0]["msg"]["market_tickers"] == [BTC.ticker, ETH.ticker, NEW.ticker]
    assert kinds(wire.update("fly", sid=1)) == [("error", 7)]
    frames = wire.update("get_snapshot", sids=[1], market_tickers=[ETH.ticker])
    assert kinds(frames) == [("orderbook_snapshot", 8)]
    assert frames[0]["id"] == 2
    frames = wire.update("delete_markets", sid=1, market_ticker=BTC.ticker)
    assert kinds(frames) == [("ok", 9)]
    assert frames[0]["msg"]["market_tickers"] == [ETH.ticker, NEW.ticker]
    assert wire.publish(delta(BTC, 1_000, 1)) == []
    frames = wire.send(id=9, cmd="unsubscribe", params={"sids": [1]})
    assert frames == [
        {"type": "unsubscribed", "id": 9, "sid": 1, "seq": 10, "sending_ts_ms": NOW_MS + 5}
    ]
    assert wire.publish(delta(ETH, 1_000, 1)) == []


def test_subscribing_again_adds_to_the_subscription(wire: Wire) -> None:
    """A held channel keeps its sid; known markets are ignored, new ones get their snapshot."""
    wire.subscribe("orderbook_delta", market_ticker=BTC.ticker)
    frames = wire.subscribe("orderbook_delta", market_tickers=[BTC.ticker, ETH.ticker])
    assert kinds(frames) == [("subscribed", None), ("orderbook_snapshot", 2)]
    assert frames[0]["msg"]["sid"] == 1
    assert frames[1]["msg"]["market_ticker"] == ETH.ticker
    listed = wire.send(id=3, cmd="list_subscriptions")
    assert listed[0]["msg"] == [{"channel": "orderbook_delta", "sid": 1}]
    assert listed[0]["id"] == 3


def test_ticker_has_no_seq_and_can_be_repeated_at_first(wire: Wire) -> None:
    """Ticker frames carry no seq; send_initial_snapshot repeats the last one, by market id too."""
    ticker = Ticker(AT + SECOND, AT + 7_250, BTC, STATE)
    wire.publish(ticker)
    frames = wire.subscribe("ticker", market_ids=[BTC.market_id], send_initial_snapshot=True)
    assert [frame["type"] for frame in frames] == ["subscribed", "ticker"]
    again = wire.publish(ticker)
    assert again[0]["msg"] == frames[1]["msg"]
    assert "seq" not in again[0]
    assert again[0]["msg"]["ts_ms"] == NOW_MS + 7
    assert again[0]["msg"]["time"] == "2026-11-18T11:06:40.00725Z"
    frames = wire.update("add_markets", sid=1, market_ticker=ETH.ticker)
    assert frames[0]["msg"] == {
        "market_tickers": [BTC.ticker, ETH.ticker],
        "market_ids": [BTC.market_id, ETH.market_id],
    }


def test_acks_leave_the_lists_out_when_asked(wire: Wire) -> None:
    """skip_ticker_ack makes later ok answers short."""
    wire.subscribe("trade", market_ticker=BTC.ticker, skip_ticker_ack=True)
    assert wire.update("add_markets", sid=1, market_ticker=ETH.ticker)[0]["msg"] == {}


def test_trades_of_all_or_of_some_markets(wire: Wire) -> None:
    """Without tickers the whole tape comes, with a seq; with tickers only theirs."""
    wire.subscribe("trade")
    frame = wire.publish(trade())[0]
    assert frame["seq"] == 1
    assert frame["msg"] == {
        "trade_id": "f07ce770-37a9-7646-bc40-1e96c189d340",
        "market_ticker": BTC.ticker,
        "yes_price_dollars": "0.1000",
        "no_price_dollars": "0.9000",
        "count_fp": "47.03",
        "taker_side": "yes",
        "taker_outcome_side": "yes",
        "taker_book_side": "bid",
        "is_block_trade": False,
        "ts": NOW_MS // 1000,
        "ts_ms": NOW_MS,
    }
    other = Wire()
    other.subscribe("trade", market_ticker=ETH.ticker)
    assert other.publish(trade()) == []


def test_lifecycle_channels_are_separate(wire: Wire) -> None:
    """Combo lifecycle has its own channel; both count a seq of their own."""
    wire.subscribe("market_lifecycle_v2", "multivariate_market_lifecycle")
    frames = wire.publish(lifecycle(), lifecycle("multivariate_market_lifecycle"), lifecycle())
    assert [(frame["sid"], frame["seq"], frame["type"]) for frame in frames] == [
        (1, 1, "market_lifecycle_v2"),
        (2, 1, "multivariate_market_lifecycle"),
        (1, 2, "market_lifecycle_v2"),
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no json", 1),
        ("[]", 1),
        ('{"id":"1","cmd":"subscribe","params":{}}', 1),
        ('{"id":1,"cmd":7}', 1),
        ('{"id":1,"cmd":"subscribe","params":[]}', 1),
        ('{"id":1,"cmd":"subscribe","params":{"channels":"trade"}}', 1),
        ('{"id":1,"cmd":"subscribe"}', 2),
        ('{"id":1,"cmd":"subscribe","params":{}}', 3),
        ('{"id":1,"cmd":"subscribe","params":{"channels":[]}}', 3),
        ('{"id":1,"cmd":"unsubscribe","params":{}}', 4),
        ('{"id":1,"cmd":"subscribee","params":{}}', 5),
        ('{"id":1,"cmd":"unsubscribe","params":{"sids":[9]}}', 7),
        ('{"id":1,"cmd":"update_subscription","params":{"sid":9,"action":"add_markets"}}', 7),
        ('{"id":1,"cmd":"subscribe","params":{"channels":["market_lifecycle"]}}', 8),
        (
            '{"cmd":"subscribe","params":{"channels":["trade"],"market_ticker":"A","market_tickers":[""]}}',
            11,
        ),
        ('{"id":1,"cmd":"update_subscription","params":{"action":"add_markets"}}', 12),
        ('{"id":1,"cmd":"update_subscription","params":{"sids":[1,2],"action":"x"}}', 12),
        ('{"id":1,"cmd":"subscribe","params":{"channels":["orderbook_delta"]}}', 14),
    ],
)
def test_faulty_commands_are_numbered(wire: Wire, text: str, code: int) -> None:
    """Every fault has the exchange's code, and leaves nothing subscribed."""
    frames = wire.raw(text)
    assert [frame["type"] for frame in frames] == ["error"]
    assert frames[0]["msg"]["code"] == code
    assert "sid" not in frames[0]
    assert wire.session.subscriptions == {}


@pytest.mark.parametrize(
    ("channel", "params", "code"),
    [
        ("trade", {"action": "get_snapshot", "market_ticker": "A"}, 13),
        ("ticker", {"action": "get_snapshot", "market_ticker": "A"}, 13),
        ("market_lifecycle_v2", {"action": "add_markets", "market_ticker": "A"}, 13),
        ("trade", {"action": "add_markets"}, 14),
        ("trade", {"market_ticker": "A"}, 15),
        ("trade", {"action": "delete_markets", "market_ticker": "A"}, 11),
    ],
)
def test_faults_about_a_subscription_take_a_seq(
    wire: Wire, channel: str, params: dict[str, Any], code: int
) -> None:
    """An error that names a sid takes the next number of that sid."""
    wire.subscribe(channel)
    frames = wire.send(id=2, cmd="update_subscription", params={"sid": 1, **params})
    assert kinds(frames) == [("error", 1)]
    assert (frames[0]["sid"], frames[0]["id"], frames[0]["msg"]["code"]) == (1, 2, code)


def test_get_snapshot_without_tickers_is_refused(wire: Wire) -> None:
    """get_snapshot must name markets."""
    wire.subscribe("orderbook_delta", market_ticker=BTC.ticker)
    assert wire.update("get_snapshot", sid=1)[0]["msg"]["code"] == 14


def test_id_zero_counts_as_absent(wire: Wire) -> None:
    """An answer to id 0 has no id."""
    frames = wire.send(id=0, cmd="list_subscriptions")
    assert frames == [{"type": "ok", "sending_ts_ms": NOW_MS + 5, "msg": []}]


def test_overflow_ends_the_subscriptions_that_had_something_to_say(wire: Wire) -> None:
    """Error 25 goes to the sid whose frames were thrown away; the other one lives on."""
    wire.subscribe("orderbook_delta", market_ticker=BTC.ticker)
    wire.subscribe("trade")
    wire.frames()
    wire.exchange.publish([delta(BTC, 1_000, 1)], NOW_MS + 9)
    wire.session.overflow(NOW_MS + 10)
    frames = wire.frames()
    assert [(frame["sid"], frame["seq"], frame["msg"]["code"]) for frame in frames] == [(1, 3, 25)]
    assert wire.publish(delta(BTC, 1_000, 1)) == []
    assert kinds(wire.publish(trade())) == [("trade", 1)]


def test_journal_tells_what_was_sent_to_whom(wire: Wire) -> None:
    """The session journal has every subscription, market and snapshot, in integer units."""
    wire.subscribe("orderbook_delta", market_ticker=BTC.ticker)
    wire.publish(delta(BTC, 52_000, -300))
    wire.update("get_snapshot", sid=1, market_ticker=BTC.ticker)
    wire.update("delete_markets", sid=1, market_ticker=BTC.ticker)
    wire.send(id=9, cmd="unsubscribe", params={"sids": [1]})
    told = [note["kind"] for note in wire.notes]
    assert told == ["subscribed", "added", "snapshot", "snapshot", "removed", "unsubscribed"]
    assert wire.notes[3] == {
        "kind": "snapshot",
        "at": AT + 5_000,
        "connection": 1,
        "sid": 1,
        "seq": 3,
        "ticker": BTC.ticker,
        "yes": ((52_500, 4_703),),
        "no": ((30_000, 200),),
        "position": 1,
        "sent_at": AT + 5_000,
    }


def test_closing_forgets_every_subscription(wire: Wire) -> None:
    """After close nothing is sent and nobody listens."""
    wire.subscribe("orderbook_delta", market_ticker=BTC.ticker)
    wire.subscribe("trade")
    wire.session.close(NOW_MS + 20)
    assert wire.publish(delta(BTC, 1_000, 1), trade()) == []


def test_who_names_only_unknown_markets_subscribes_to_none(wire: Wire) -> None:
    """kalshi-api 3.3: a market that is not known is no error, and none of the others is meant."""
    for params in (
        {"market_ids": ["11111111-2222-3333-4444-555555555555"]},
        {"market_ticker": "NONE-1"},
    ):
        assert [f["type"] for f in wire.subscribe("ticker", **params)] == ["subscribed"]
        assert wire.publish(Ticker(AT + SECOND, AT + 7_250, BTC, STATE)) == []
    assert (
        wire.update("add_markets", sid=1, market_ticker=BTC.ticker)[0]["msg"]["market_tickers"][-1]
        == BTC.ticker
    )
    assert len(wire.publish(Ticker(AT + 2 * SECOND, AT + 8_250, BTC, STATE))) == 1
