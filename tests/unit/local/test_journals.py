"""The simulator's journals, read back."""

import json

from libs.marketdata.capture import CaptureFilter
from libs.marketdata.rebuild import BookDelta
from services.local.sessions import read_session_journal
from services.local.truth import TICKER_FIELDS, read_market_journal
from services.local.verdict import Fact

S = 1_000_000


def lines(*entries: dict[str, object]) -> list[bytes]:
    return [json.dumps(entry).encode() for entry in entries]


def session(kind: str, at: int, connection: int = 1, **fields: object) -> dict[str, object]:
    return {"kind": kind, "at": at, "connection": connection, **fields}


JOURNAL = lines(
    session("opened", 1, key_id="a"),
    session("subscribed", 2, sid=1, channel="orderbook_delta", everything=False),
    session("added", 3, sid=1, tickers=["M", "N"]),
    session("snapshot", 3, sid=1, seq=1, ticker="M", yes=[[5, 6]], no=[], position=0, sent_at=3000),
    session("removed", 9, sid=1, tickers=["N"]),
    session("opened", 10, 2, key_id="b"),
    session("subscribed", 11, 2, sid=1, channel="orderbook_delta", everything=False),
    session("added", 12, 2, sid=1, tickers=["M"]),
    session("subscribed", 12, 2, sid=2, channel="trade", everything=True),
    session("closed", 15),
    session("unsubscribed", 18, 2, sid=1, channel="orderbook_delta"),
    {"kind": "end", "at": 20, "epoch": 0, "end_ts": 19},
    {"kind": "final_book", "ticker": "M", "yes": [], "no": []},
)


def test_subscriptions_begin_when_added_and_end_however_they_end() -> None:
    """Removed, unsubscribed, closed with the connection, or still open at the end of the journal."""
    found = read_session_journal(JOURNAL)
    assert found.subscribed == {
        ("a", "orderbook_delta", "N"): [(3, 9)],
        ("a", "orderbook_delta", "M"): [(3, 15)],
        ("b", "orderbook_delta", "M"): [(12, 18)],
        ("b", "trade", None): [(12, 20)],
    }
    assert (found.epoch, found.end_ts) == (0, 19)
    assert found.snapshots == {("M", 1, 1, 3000): [(((5, 6),), ())]}


def test_of_an_exchange_that_goes_on_a_span_stands_for_beginning_and_end() -> None:
    """What is subscribed stays so to the span's end, although no line says anything any more."""
    found = read_session_journal(JOURNAL[:-2], (5, 40))
    assert (found.epoch, found.end_ts) == (5, 40)
    assert found.subscribed["b", "trade", None] == [(12, 40)]
    assert found.asked_for("orderbook_delta", 5) == {"M", "N"}
    assert found.asked_for("orderbook_delta", 3) == set()
    assert found.asked_for("trade", None) == set()


def test_a_cause_is_when_no_key_was_subscribed() -> None:
    """One zone's absence is not production's while another one is subscribed."""
    found = read_session_journal(JOURNAL)
    assert found.unsubscribed(["a"], "orderbook_delta", "M", (0, 19)) == [(0, 3), (15, 19)]
    assert found.unsubscribed(["a", "b"], "orderbook_delta", "M", (0, 19)) == [(0, 3), (18, 19)]
    assert found.unsubscribed(["b"], "trade", "M", (0, 19)) == [(0, 12)]


def test_the_market_journal_is_facts_and_books() -> None:
    """Every kind of line lands in its place; lifecycle bodies are compared by value, not by spelling."""
    ticker_fields = dict.fromkeys(
        ("price", "yes_bid", "yes_ask", "yes_bid_size", "yes_ask_size", "last_trade_size", "volume",
         "open_interest", "dollar_volume", "dollar_open_interest"), 7,
    )  # fmt: skip
    truth = read_market_journal(
        lines(
            {"kind": "created", "at": 5, "ticker": "M", "yes": [[50, 10]], "no": []},
            {"kind": "delta", "exchange_ts": 1000, "ticker": "M", "side": True, "price": 50, "size_delta": -4},
            {"kind": "delta", "exchange_ts": 1000, "ticker": "M", "side": False, "price": 40, "size_delta": 3},
            {"kind": "trade", "exchange_ts": 1000, "ticker": "M", "trade_id": "t", "size": 1, "yes_price": 2,
             "no_price": 3, "taker_side": True},
            {"kind": "ticker", "exchange_ts": 1000, "ticker": "M", **ticker_fields},
            {"kind": "lifecycle", "at": 9, "ticker": "M", "message_type": "market_lifecycle_v2",
             "event_type": "determined", "body": {"b": 1, "a": 2}},
            {"kind": "closed", "at": 8, "ticker": "M"},
            {"kind": "something new"},
        )
    )  # fmt: skip
    market = truth.markets["M"]
    assert (market.created_at, market.closed_at) == (5, 8)
    assert market.deltas[0] == BookDelta(1000, None, True, 50, -4)
    assert market.book() == {(True, 50): 6, (False, 40): 3}
    assert list(truth.deltas())[1] == Fact("M", 1000, (1000, False, 40, 3))
    assert truth.trades == [Fact("M", 1000, (1000, "t", 1, 2, 3, True))]
    assert truth.tickers == {Fact("M", 1000, (1000, *[7] * 10))}
    assert truth.lifecycle == [Fact("M", 9, ("market_lifecycle_v2", "determined", '{"a":2,"b":1}'))]


def test_a_span_has_its_own_trades_and_every_delta_before_its_end() -> None:
    """Books are rebuilt from the beginning; a market that is listed after the end is none of the span's."""
    trade: dict[str, object] = {
        "kind": "trade", "ticker": "M", "size": 1, "yes_price": 2, "no_price": 3, "taker_side": True,
    }  # fmt: skip
    delta: dict[str, object] = {
        "kind": "delta", "ticker": "M", "side": True, "price": 50, "size_delta": 1,
    }  # fmt: skip
    book: dict[str, object] = {"kind": "created", "yes": [], "no": []}
    moments = (1000, 5000, 9000)
    truth = read_market_journal(
        lines(
            book | {"ticker": "M", "at": 1, "initial": True},
            *(trade | {"exchange_ts": at, "trade_id": str(at)} for at in moments),
            *(delta | {"exchange_ts": at} for at in moments),
            book | {"ticker": "N", "at": 4000, "initial": False},
            book | {"ticker": "LATE", "at": 9500, "initial": False},
            {"kind": "closed", "ticker": "N", "at": 8900},
            {"kind": "closed", "ticker": "M", "at": 9000},
        ),
        (5000, 9000),
    )
    assert [fact.moment for fact in truth.trades] == [5000]
    assert [d.exchange_ts for d in truth.markets["M"].deltas] == [1000, 5000]
    assert [fact.moment for fact in truth.deltas((5000, 9000))] == [5000]
    assert truth.lives() == {"M": (None, None), "N": (4000, 8900)}


def test_a_capture_of_some_markets_can_hold_only_theirs() -> None:
    """Books, trades and tickers of what is not wanted are no truth of it; lifecycle messages are recorded of all."""
    trade: dict[str, object] = {
        "kind": "trade",
        "exchange_ts": 1000,
        "size": 1,
        "yes_price": 2,
        "no_price": 3,
    }
    entries: list[dict[str, object]] = [
        {"kind": "created", "at": 5, "yes": [], "no": []},
        trade | {"trade_id": "t", "taker_side": True},
        {"kind": "ticker", "exchange_ts": 1000, **dict.fromkeys(TICKER_FIELDS, 7)},
        {"kind": "lifecycle", "at": 9, "message_type": "m", "event_type": "settled", "body": {}},
    ]
    named = [entry | {"ticker": name} for name in ("M", "KXMVE-1") for entry in entries]
    truth = read_market_journal(lines(*named))
    found = truth.only(CaptureFilter().may_want)
    assert set(found.markets) == {"M"}
    assert {fact.ticker for fact in (*found.trades, *found.tickers)} == {"M"}
    assert [fact.ticker for fact in found.lifecycle] == ["M", "KXMVE-1"]
