import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.exchange import wire
from libs.exchange.errors import Undecodable
from libs.exchange.wire import Envelope, decode_envelope, decode_message, ticker_of

DELTA = {
    "type": "orderbook_delta",
    "sid": 1,
    "seq": 2,
    "msg": {
        "market_ticker": "K-1",
        "market_id": "",
        "price_dollars": "0.4700",
        "delta_fp": "-3.00",
        "side": "yes",
        "ts": "2026-06-11T06:31:29.957081Z",
        "ts_ms": 1781159489957,
    },
}


def encode(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def test_every_type_has_its_struct() -> None:
    """Each message type of the exchange decodes to the struct of its name, envelope included."""
    book = {"market_ticker": "K", "market_id": ""}
    event = {"event_ticker": "E", "title": "t"}
    cases: list[tuple[dict[str, object], type]] = [
        (DELTA, wire.OrderbookDelta),
        ({"type": "orderbook_snapshot", "sid": 1, "seq": 1, "msg": book}, wire.OrderbookSnapshot),
        ({"type": "subscribed", "id": 1, "msg": {"channel": "trade", "sid": 2}}, wire.Subscribed),
        ({"type": "unsubscribed", "id": 2, "sid": 2, "seq": 7}, wire.Unsubscribed),
        ({"type": "ok", "id": 3, "sid": 4, "seq": 5, "msg": {"market_tickers": ["K"]}}, wire.Ok),
        ({"type": "ok", "id": 3, "msg": [{"channel": "ticker", "sid": 2}]}, wire.Ok),
        ({"type": "ok", "id": 3}, wire.Ok),
        ({"type": "error", "id": 3, "msg": {"code": 7, "msg": "Unknown"}}, wire.Error),
        ({"type": "event_lifecycle", "sid": 3, "msg": event}, wire.EventLifecycle),
        ({"type": "event_fee_update", "sid": 3, "msg": event}, wire.EventFeeUpdate),
        (
            {"type": "market_lifecycle_v2", "sid": 3, "msg": {**book, "event_type": "created"}},
            wire.MarketLifecycle,
        ),
        (
            {
                "type": "multivariate_market_lifecycle",
                "sid": 3,
                "msg": {**book, "event_type": "created"},
            },
            wire.MultivariateLifecycle,
        ),
    ]
    for message, kind in cases:
        decoded = decode_message(encode({**message, "sending_ts_ms": 5}))
        assert type(decoded) is kind
        assert (decoded.sid, decoded.seq) == (message.get("sid"), message.get("seq"))
        assert decoded.sending_ts_ms == 5


def test_unknown_fields_and_odd_deprecated_fields_cost_nothing() -> None:
    """A new key anywhere, or another type of the deprecated ts, leaves the message as it was."""
    message = json.loads(encode(DELTA))
    plain = decode_message(encode(message))
    message["new"] = {"a": [1]}
    message["msg"] |= {"clock": 1.5, "market_id": None}
    assert decode_message(encode(message)) == plain
    message["msg"]["ts"] = 1781159489
    decoded = decode_message(encode(message))
    assert isinstance(decoded, wire.OrderbookDelta)
    assert (decoded.msg.ts, decoded.msg.ts_ms) == (1781159489, 1781159489957)


def test_type_may_come_last() -> None:
    """The recordings of production write their keys in alphabetical order: type stands behind msg."""
    assert decode_message(json.dumps(DELTA, sort_keys=True).encode()) == decode_message(
        encode(DELTA)
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JSON object"),
        (b"hello", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"[" * 200_000, "not a JSON object"),
        (b'{"type":"trade","x":' + b"[" * 200_000, "not a JSON object"),
        (b'{"sid":1}', "no type"),
        (b'{"type":7}', "no type"),
        (b'{"type":"market_lifecycle","sid":1}', "unknown type 'market_lifecycle'"),
        (b'{"type":"trade","sid":1}', "trade: "),
        (b'{"type":"market_lifecycle_v2","sid":1,"msg":{"market_ticker":"K"}}', "event_type"),
        (b'{"type":"event_lifecycle","sid":1,"msg":{}}', "event_ticker"),
        (encode({**DELTA, "sid": 2**31}), "orderbook_delta: "),
        (encode({**DELTA, "seq": -1}), "orderbook_delta: "),
        (encode(DELTA)[:60], "not a JSON object"),
        (b'{"type":"ok","msg":"\xff"}', "ok: "),
        (b'{"type":"subscribed","msg":{"channel":"\xff","sid":1}}', "subscribed: "),
    ],
)
def test_what_cannot_be_decoded_says_why(data: bytes, reason: str) -> None:
    """Every bad frame is Undecodable with one line that names the fault."""
    with pytest.raises(Undecodable) as caught:
        decode_message(data)
    assert reason in caught.value.reason
    assert not caught.value.retryable


def test_envelope_survives_a_bad_message() -> None:
    """The number of a message that does not fit is still read; a field of another type is None."""
    bad = {**DELTA, "msg": [1], "sending_ts_ms": 9}
    assert decode_envelope(encode(bad)) == Envelope("orderbook_delta", 1, 2, 9)
    odd = {"type": 1, "sid": 2**31, "seq": True, "sending_ts_ms": "9"}
    assert decode_envelope(encode(odd)) == Envelope(None, None, None, None)
    assert decode_envelope(b"{") is None
    assert decode_envelope(b"[]") is None


@pytest.mark.parametrize(
    ("data", "ticker"),
    [
        (encode(DELTA), "K-1"),
        (b'{"msg":{"event_ticker":"E"}}', "E"),
        (b'{"msg":{"market_ticker":7,"event_ticker":""}}', None),
        (b'{"msg":{"market_ticker":"a\\u0000b"}}', None),
        (b"{}", None),
        (b"nonsense", None),
        (encode(DELTA)[:80], "K-1"),
    ],
)
def test_ticker_of(data: bytes, ticker: str | None) -> None:
    """The market is named even of a frame cut short; what the database could not hold is no name."""
    assert ticker_of(data) == ticker


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_undecodable(data: bytes) -> None:
    """Nothing but Undecodable ever leaves the decoder, and the helpers never raise."""
    decode_envelope(data)
    ticker_of(data)
    with pytest.raises(Undecodable):
        decode_message(data)


@given(st.integers(0, len(encode(DELTA)) - 1), st.integers(0, 255))
def test_a_flipped_byte_is_a_message_or_undecodable(place: int, value: int) -> None:
    """One damaged byte is either still a message or Undecodable."""
    data = bytearray(encode(DELTA))
    data[place] = value
    with contextlib.suppress(Undecodable):
        assert type(decode_message(bytes(data))) is wire.OrderbookDelta
