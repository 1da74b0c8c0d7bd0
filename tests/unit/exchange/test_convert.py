import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.exchange import convert, wire
from libs.exchange.rest_wire import RestBook, RestTrade
from libs.marketdata import tables
from libs.marketdata.binary import codec, content_hash
from libs.marketdata.units import PRICE_ONE, ValueDoesNotFit, format_price, format_size

CONNECTION = UUID(int=7)


def decode(kind: str, msg: dict[str, Any], **envelope: Any) -> Any:
    frame = {"type": kind, "sid": 1, "seq": 2, "msg": msg, **envelope}
    return wire.decode_message(json.dumps(frame).encode())


def delta(**changes: Any) -> Any:
    msg = {
        "market_ticker": "K-1",
        "price_dollars": "0.4700",
        "delta_fp": "-3.05",
        "side": "no",
        "ts": "2026-06-11T06:31:29.957081Z",
        "ts_ms": 1781159489957,
    } | changes
    return decode("orderbook_delta", {k: v for k, v in msg.items() if v is not None})


def trade(**changes: Any) -> Any:
    msg = {
        "trade_id": "t-1",
        "market_ticker": "K-1",
        "yes_price_dollars": "0.1000",
        "no_price_dollars": "0.9000",
        "count_fp": "47.03",
        "taker_side": "yes",
        "taker_outcome_side": "no",
        "taker_book_side": "bid",
        "is_block_trade": False,
        "ts": 1787186161,
        "ts_ms": 1787186161011,
    } | changes
    return decode("trade", {k: v for k, v in msg.items() if v is not None}, sending_ts_ms=5)


def ticker(**changes: Any) -> Any:
    msg = {
        "market_ticker": "K-1",
        "market_id": "x",
        "price_dollars": "0.9800",
        "yes_bid_dollars": "0.9700",
        "yes_ask_dollars": "0.9800",
        "yes_bid_size_fp": "17419.38",
        "yes_ask_size_fp": "42.00",
        "last_trade_size_fp": "8.15",
        "volume_fp": "2478289.86",
        "open_interest_fp": "1489029.44",
        "dollar_volume": 1239144,
        "dollar_open_interest": 744514,
        "ts": 1787186161,
        "ts_ms": 1787186161382,
        "time": "2026-08-20T00:36:01.382426Z",
    } | changes
    return decode("ticker", {k: v for k, v in msg.items() if v is not None})


def test_delta_keeps_its_own_leg() -> None:
    """A no delta quoted on the yes scale is turned back; a yes delta is never touched."""
    expected = ("K-1", 1781159489957000, False, 47000, -305)
    assert convert.delta_values(delta(), use_yes_price=False) == expected
    assert convert.delta_values(delta(price_dollars="0.5300"), use_yes_price=True) == expected
    assert convert.delta_values(delta(side="yes"), use_yes_price=True)[2:4] == (True, 47000)


@pytest.mark.parametrize("digits", ["957", "957081", "957081999"])
def test_delta_without_ts_ms_uses_the_floored_text(digits: str) -> None:
    """Without ts_ms the RFC 3339 text counts, floored to the millisecond, whatever its precision."""
    message = delta(ts_ms=None, ts=f"2026-06-11T06:31:29.{digits}Z")
    assert convert.delta_values(message, use_yes_price=False)[1] == 1781159489957000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"price_dollars": "0.123456"}, "price_dollars"),
        ({"price_dollars": "1.01"}, "price_dollars"),
        ({"delta_fp": "0.001"}, "delta_fp"),
        ({"delta_fp": "1e3"}, "delta_fp"),
        ({"side": "maybe"}, "side"),
        ({"market_ticker": ""}, "market_ticker"),
        ({"market_ticker": "a\x00b"}, "market_ticker"),
        ({"market_ticker": "K" * 201}, "market_ticker"),
        ({"ts_ms": None, "ts": None}, "ts_ms"),
        ({"ts_ms": None, "ts": 1781159489}, "ts_ms"),
        ({"ts_ms": None, "ts": "yesterday"}, "ts"),
        ({"ts_ms": -1}, "ts_ms"),
        ({"ts_ms": 2**62}, "ts_ms"),
    ],
)
def test_a_delta_that_does_not_fit_names_the_field(changes: dict[str, Any], field: str) -> None:
    """Whatever does not fit is refused with the field's name in front."""
    with pytest.raises(ValueDoesNotFit, match=f"^{field}: "):
        convert.delta_values(delta(**changes), use_yes_price=False)


def snapshot(**sides: Any) -> Any:
    return decode("orderbook_snapshot", {"market_ticker": "K-1", **sides}, sending_ts_ms=9)


def test_ladders_are_sorted_and_in_their_own_leg() -> None:
    """Both sides ascend; the no side of a yes-scale subscription is turned back."""
    book = snapshot(
        yes_dollars_fp=[["0.0200", "5.00"], ["0.0100", "1.50"]],
        no_dollars_fp=[["0.9900", "2.00"], ["0.9800", "0.25"]],
    )
    yes = ((1000, 150), (2000, 500))
    assert convert.ladders(book, use_yes_price=False) == (yes, ((98000, 25), (99000, 200)))
    assert convert.ladders(book, use_yes_price=True) == (yes, ((1000, 200), (2000, 25)))
    assert convert.is_crossed(*convert.ladders(book, use_yes_price=False))
    assert not convert.is_crossed(*convert.ladders(book, use_yes_price=True))


def test_a_book_without_levels_is_two_empty_ladders() -> None:
    """A missing key is an empty side, not a fault, and an empty book is not crossed."""
    assert convert.ladders(snapshot(), use_yes_price=True) == ((), ())
    assert not convert.is_crossed((), ())


@pytest.mark.parametrize(
    "levels", [[["0.01", "1.00"], ["0.0100", "2.00"]], [["0.01", "-1.00"]], [["2", "1.00"]]]
)
def test_a_ladder_that_cannot_be(levels: list[list[str]]) -> None:
    """A price named twice, a negative size or a price above a dollar names the side."""
    with pytest.raises(ValueDoesNotFit, match=r"^no_dollars_fp: "):
        convert.ladders(snapshot(no_dollars_fp=levels), use_yes_price=False)


def test_snapshot_row() -> None:
    """A socket snapshot is observed when it was sent, else when it came, and has the hash of its ladders."""
    book = snapshot(yes_dollars_fp=[["0.0100", "1.00"]])
    row = convert.snapshot_row(
        book, 50, CONNECTION, False, is_first=True, cut_exchange_ts=None, cut_pos=None
    )
    assert (row.observed_at, row.observed_is_sent, row.sent_at) == (9000, True, 9000)
    assert (row.source, row.sid, row.seq, row.yes, row.no) == ("ws", 1, 2, ((1000, 100),), ())
    assert row.content_hash == content_hash(tables.ORDERBOOK_SNAPSHOTS, (row.yes, row.no))
    book.sending_ts_ms = None
    row = convert.snapshot_row(
        book, 50, CONNECTION, False, is_first=False, cut_exchange_ts=4, cut_pos=2
    )
    assert (row.observed_at, row.observed_is_sent, row.sent_at) == (50, False, None)
    assert (row.cut_exchange_ts, row.cut_pos, row.is_first) == (4, 2, False)
    assert codec("orderbook_snapshots").decode(codec("orderbook_snapshots").encode(row))[0] == row


def test_rest_snapshot_row_leaves_out_a_known_book() -> None:
    """A REST book equal to the last stored one is a row without ladders and with the same hash."""
    book = msgspec.json.decode(
        b'{"orderbook_fp":{"yes_dollars":[["0.47","3.00"]],"no_dollars":null}}', type=RestBook
    )
    row = convert.snapshot_row_from_rest("K-1", book, 10, 20)
    assert (row.source, row.observed_at, row.requested_at) == ("rest", 20, 10)
    assert (row.yes, row.no) == (((47000, 300),), ())
    again = convert.snapshot_row_from_rest("K-1", book, 30, 40, last_hash=row.content_hash)
    assert (again.content_hash, again.yes, again.no) == (row.content_hash, None, None)
    assert convert.snapshot_row_from_rest("K-1", book, 30, 40, last_hash=1).yes == row.yes


def test_trade_row() -> None:
    """A trade's values are exact and the newest name of the taker's side counts."""
    row = convert.trade_row(trade(), 99, CONNECTION)
    assert row == (
        1787186161011000, 99, 4703, 10000, 90000, False, "t-1", "K-1", CONNECTION, 1, 2, 5000, False,
    )  # fmt: skip


def test_trade_falls_back_field_by_field() -> None:
    """Older taker fields and the second-grained ts serve when the newer ones are absent."""
    only_old = trade(taker_outcome_side=None)
    assert convert.trade_row(only_old, 99, CONNECTION).taker_side is True
    only_book = trade(taker_outcome_side=None, taker_side=None, taker_book_side="ask")
    assert convert.trade_row(only_book, 99, CONNECTION).taker_side is False
    assert convert.trade_row(trade(ts_ms=None), 99, CONNECTION).exchange_ts == 1787186161000000
    text = trade(ts_ms=None, ts="2026-08-20T00:36:01.0119Z")
    assert convert.trade_row(text, 99, CONNECTION).exchange_ts == 1787186161011000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"taker_outcome_side": "x"}, "taker_outcome_side"),
        (
            {"taker_outcome_side": None, "taker_side": None, "taker_book_side": None},
            "taker_outcome_side",
        ),
        ({"count_fp": "-1.00"}, "count_fp"),
        ({"yes_price_dollars": "x"}, "yes_price_dollars"),
        ({"trade_id": ""}, "trade_id"),
        ({"ts_ms": None, "ts": None}, "ts_ms"),
    ],
)
def test_a_trade_that_does_not_fit_names_the_field(changes: dict[str, Any], field: str) -> None:
    """Whatever does not fit is refused with the field's name in front."""
    with pytest.raises(ValueDoesNotFit, match=f"^{field}: "):
        convert.trade_row(trade(**changes), 99, CONNECTION)


def test_trade_row_from_rest() -> None:
    """A REST trade has its time floored to the millisecond and no connection."""
    data = RestTrade(
        "t-1", "K-1", "7.77", "0.0300", "0.9700", "2026-06-15T15:48:42.60323Z", "yes", is_block_trade=True
    )  # fmt: skip
    row = convert.trade_row_from_rest(data, 99)
    assert row == (
        1781538522603000, 99, 777, 3000, 97000, True, "t-1", "K-1", None, None, None, None, True,
    )  # fmt: skip


def test_ticker_row_and_its_hash() -> None:
    """A ticker's hash covers its values and neither its times nor market_id nor unknown fields."""
    row = convert.ticker_row(ticker(), 99, CONNECTION, 3)
    assert (row.exchange_ts, row.price, row.yes_bid, row.yes_ask) == (
        1787186161382000, 98000, 97000, 98000,
    )  # fmt: skip
    assert (row.volume, row.open_interest) == (247828986, 148902944)
    assert (row.yes_bid_size, row.yes_ask_size, row.last_trade_size) == (1741938, 4200, 815)
    assert (row.dollar_volume, row.dollar_open_interest, row.seq) == (1239144, 744514, 3)
    hashed = [getattr(row, name) for name in tables.TICKERS.hashed]
    assert row.content_hash == content_hash(tables.TICKERS, hashed)
    other = convert.ticker_row(
        ticker(ts_ms=1_000_000_000_000, market_id="y", new=1), 1, UUID(int=8), 9
    )
    assert other.content_hash == row.content_hash
    changed = convert.ticker_row(ticker(dollar_volume=1), 99, CONNECTION, 3)
    assert changed.content_hash != row.content_hash
    floored = convert.ticker_row(ticker(ts_ms=None), 99, CONNECTION, 3)
    assert floored.exchange_ts == row.exchange_ts


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dollar_volume": 2**63}, "dollar_volume"),
        ({"yes_bid_size_fp": "-1.00"}, "yes_bid_size_fp"),
        ({"ts_ms": None, "time": None}, "ts_ms"),
    ],
)
def test_a_ticker_that_does_not_fit_names_the_field(changes: dict[str, Any], field: str) -> None:
    """Whatever does not fit is refused with the field's name in front."""
    with pytest.raises(ValueDoesNotFit, match=f"^{field}: "):
        convert.ticker_row(ticker(**changes), 99, CONNECTION, 3)


def test_lifecycle_row_of_a_market() -> None:
    """Business times become microseconds, the body is the whole message in canonical order."""
    msg = {
        "market_ticker": "K-1",
        "event_type": "settled",
        "result": "yes",
        "settlement_value": "1.0000",
        "determination_ts": 1776315905,
        "settled_ts": 1776315906,
        "open_ts": 1,
        "close_ts": 0,
        "new": True,
    }
    row = convert.lifecycle_row(
        decode("market_lifecycle_v2", msg, sending_ts_ms=8), 99, CONNECTION, 12
    )
    assert (row.message_type, row.event_type, row.ticker) == (
        "market_lifecycle_v2", "settled", "K-1",
    )  # fmt: skip
    assert (row.open_at, row.close_at, row.determined_at, row.settled_at) == (
        1_000_000, 0, 1776315905_000000, 1776315906_000000,
    )  # fmt: skip
    assert (row.settlement_value, row.result) == (100_000, "yes")
    assert (row.seq, row.sent_at, row.observed_at, row.observed_is_sent) == (12, 8000, 8000, True)
    assert row.body == json.dumps(msg, sort_keys=True, separators=(",", ":"))


def test_lifecycle_hash_knows_order_and_unknown_fields_not() -> None:
    """Key order and unknown fields, also inside the metadata, leave the hash alone; known ones change it."""
    metadata = {"name": "n", "title": "t"}
    msg = {
        "market_ticker": "K-1",
        "event_type": "created",
        "result": "",
        "additional_metadata": metadata,
    }

    def hash_of(body: dict[str, Any]) -> int:
        message = decode("multivariate_market_lifecycle", body)
        return convert.lifecycle_row(message, 99, CONNECTION, 1).content_hash

    first = hash_of(msg)
    assert hash_of(dict(reversed(msg.items()))) == first
    assert hash_of({**msg, "market_id": "x", "ts_ms": 5}) == first
    assert hash_of({**msg, "additional_metadata": {**metadata, "new": 1}}) == first
    assert hash_of({**msg, "additional_metadata": {**metadata, "title": "u"}}) != first
    assert hash_of({**msg, "event_type": "activated"}) != first


def test_lifecycle_row_of_an_event() -> None:
    """Event messages carry the event's ticker, an empty event_type and no business times."""
    msg = {"event_ticker": "E-1", "fee_type_override": None, "fee_multiplier_override": None}
    row = convert.lifecycle_row(decode("event_fee_update", msg), 99, CONNECTION, 1)
    assert (row.ticker, row.event_type, row.message_type) == ("E-1", "", "event_fee_update")
    assert (row.observed_at, row.observed_is_sent, row.open_at, row.result) == (
        99, False, None, None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"open_ts": -1}, "open_ts"),
        ({"settlement_value": "2"}, "settlement_value"),
        ({"result": "a\x00"}, "result"),
        ({"event_type": ""}, "event_type"),
    ],
)
def test_a_lifecycle_that_does_not_fit_names_the_field(changes: dict[str, Any], field: str) -> None:
    """Whatever does not fit is refused with the field's name in front."""
    msg = {"market_ticker": "K-1", "event_type": "settled"} | changes
    message = decode("market_lifecycle_v2", msg)
    with pytest.raises(ValueDoesNotFit, match=f"^{field}: "):
        convert.lifecycle_row(message, 99, CONNECTION, 1)


def test_a_lifecycle_body_that_cannot_be_kept() -> None:
    """Bytes that are no UTF-8 in a field we do not read would fail in the database: refused here."""
    data = b'{"type":"event_lifecycle","sid":1,"msg":{"event_ticker":"E","title":"\xff"}}'
    message = wire.decode_message(data)
    assert isinstance(message, wire.EventLifecycle)
    with pytest.raises(ValueDoesNotFit, match=r"^msg: "):
        convert.lifecycle_row(message, 99, CONNECTION, 1)


def test_sending_time_that_does_not_fit() -> None:
    """An impossible sending time is refused, an absent one is None."""
    assert convert.sent_at_of(None) is None
    with pytest.raises(ValueDoesNotFit, match=r"^sending_ts_ms: "):
        convert.sent_at_of(0)


@given(
    st.integers(0, PRICE_ONE),
    st.integers(-(10**15), 10**15),
    st.booleans(),
    st.booleans(),
    st.integers(946_684_800_000, 4_102_444_799_999),
)
def test_every_delta_comes_back_exactly(
    price: int, size: int, side: bool, use_yes_price: bool, ts_ms: int
) -> None:
    """Any price, size, side and time survives the wire and back, under both orientations."""
    quoted = PRICE_ONE - price if use_yes_price and not side else price
    message = delta(
        price_dollars=format_price(quoted),
        delta_fp=format_size(size),
        side="yes" if side else "no",
        ts_ms=ts_ms,
    )
    assert convert.delta_values(message, use_yes_price) == ("K-1", ts_ms * 1000, side, price, size)
