"""The exchange's websocket messages as types: only the fields we use, so that a change in any other costs nothing.

One decoder, made once, turns bytes into one of these structs by the `type` field. Unknown fields are ignored; an
unknown type is Undecodable. The envelope can be read apart (envelope.py): the number of a message that does not
fit is still known, so it costs one rejected frame and one market's gap, not the whole sid.
"""

import msgspec

from libs.exchange.envelope import UNREADABLE, Envelope, Seq, Sid, decode_envelope, ticker_of
from libs.exchange.errors import Undecodable
from libs.exchange.wire_lifecycle import (
    EventBody,
    EventFeeUpdate,
    EventLifecycle,
    LifecycleMessage,
    MarketLifecycle,
    MarketLifecycleBody,
    MultivariateLifecycle,
)

__all__ = [
    "MESSAGE_TYPES", "UNREADABLE", "DeltaBody", "Envelope", "Error", "ErrorBody", "EventBody", "EventFeeUpdate",
    "EventLifecycle", "Levels", "LifecycleMessage", "LooseTime", "MarketLifecycle", "MarketLifecycleBody", "Message",
    "MultivariateLifecycle", "Ok", "OkBody", "OrderbookDelta", "OrderbookSnapshot", "Seq", "Sid", "SnapshotBody",
    "Subscribed", "SubscribedBody", "Ticker", "TickerBody", "Trade", "TradeBody", "Unsubscribed", "decode_envelope",
    "decode_message", "ticker_of",
]  # fmt: skip

Levels = list[tuple[str, str]]
LooseTime = str | int | float | None
"""A deprecated time field: whatever type it has, it must not cost the message."""


class SubscribedBody(msgspec.Struct, gc=False):
    """One channel and its subscription."""

    channel: str
    sid: Sid


class Subscribed(msgspec.Struct, tag_field="type", tag="subscribed", gc=False):
    """One channel of a subscribe command is live under msg.sid; has no envelope sid or seq."""

    msg: SubscribedBody
    id: int | None = None
    sid: Sid | None = None
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class Unsubscribed(msgspec.Struct, tag_field="type", tag="unsubscribed", gc=False):
    """A subscription ended; takes a number of its sequence."""

    id: int | None = None
    sid: Sid | None = None
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class OkBody(msgspec.Struct):
    """All markets of the subscription after an update; empty with skip_ticker_ack."""

    market_tickers: list[str] | None = None


class Ok(msgspec.Struct, tag_field="type", tag="ok"):
    """An update or a listing succeeded; with sid and seq it takes a number of the sequence."""

    msg: OkBody | list[SubscribedBody] | None = None
    id: int | None = None
    sid: Sid | None = None
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class ErrorBody(msgspec.Struct, gc=False):
    """What went wrong, by number."""

    code: int
    msg: str = ""
    market_ticker: str | None = None


class Error(msgspec.Struct, tag_field="type", tag="error", gc=False):
    """A command failed, or a subscription died (codes 10 and 25); with sid and seq it takes a number of the sequence."""

    msg: ErrorBody
    id: int | None = None
    sid: Sid | None = None
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class SnapshotBody(msgspec.Struct, gc=False):
    """A book; a side without levels has no key. Prices of `no` follow the subscription's use_yes_price."""

    market_ticker: str
    yes_dollars_fp: Levels | None = None
    no_dollars_fp: Levels | None = None


class OrderbookSnapshot(msgspec.Struct, tag_field="type", tag="orderbook_snapshot", gc=False):
    """All levels of one market at this place of the sequence; `id` when it answers get_snapshot."""

    msg: SnapshotBody
    sid: Sid
    seq: Seq
    sending_ts_ms: int | None = None
    id: int | None = None


class DeltaBody(msgspec.Struct, gc=False):
    """A signed change of one level."""

    market_ticker: str
    price_dollars: str
    delta_fp: str
    side: str
    ts_ms: int | None = None
    ts: LooseTime = None


class OrderbookDelta(msgspec.Struct, tag_field="type", tag="orderbook_delta", gc=False):
    """One change of one market's book."""

    msg: DeltaBody
    sid: Sid
    seq: Seq
    sending_ts_ms: int | None = None


class TradeBody(msgspec.Struct, gc=False):
    """Prices of both legs; three fields name the taker, the last two deprecated or newer."""

    trade_id: str
    market_ticker: str
    yes_price_dollars: str
    no_price_dollars: str
    count_fp: str
    taker_outcome_side: str | None = None
    taker_side: str | None = None
    taker_book_side: str | None = None
    is_block_trade: bool | None = None
    ts_ms: int | None = None
    ts: LooseTime = None


class Trade(msgspec.Struct, tag_field="type", tag="trade", gc=False):
    """One trade."""

    msg: TradeBody
    sid: Sid
    seq: Seq | None = None
    sending_ts_ms: int | None = None


class TickerBody(msgspec.Struct, gc=False):
    """Top of book, last trade and volumes of one market."""

    market_ticker: str
    price_dollars: str
    yes_bid_dollars: str
    yes_ask_dollars: str
    volume_fp: str
    open_interest_fp: str
    dollar_volume: int
    dollar_open_interest: int
    yes_bid_size_fp: str
    yes_ask_size_fp: str
    last_trade_size_fp: str
    ts_ms: int | None = None
    time: LooseTime = None


class Ticker(msgspec.Struct, tag_field="type", tag="ticker", gc=False):
    """The state of one market, conflated; the exchange sends no seq."""

    msg: TickerBody
    sid: Sid
    seq: Seq | None = None
    sending_ts_ms: int | None = None


Message = (
    OrderbookDelta
    | OrderbookSnapshot
    | Trade
    | Ticker
    | MarketLifecycle
    | MultivariateLifecycle
    | EventLifecycle
    | EventFeeUpdate
    | Subscribed
    | Unsubscribed
    | Ok
    | Error
)

MESSAGE_TYPES = frozenset(
    {
        "orderbook_delta", "orderbook_snapshot", "trade", "ticker", "market_lifecycle_v2",
        "multivariate_market_lifecycle", "event_lifecycle", "event_fee_update", "subscribed",
        "unsubscribed", "ok", "error",
    }
)  # fmt: skip
"""Every value of `type` that decode_message knows."""


_message: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def decode_message(data: bytes) -> Message:
    """Decode one frame to its typed message.

    Raises:
        Undecodable: not JSON, an unknown type, or a field missing or of another type; reason says which.
    """
    try:
        return _message.decode(data)
    except UNREADABLE as error:
        envelope = decode_envelope(data)
        if envelope is None:
            raise Undecodable(f"not a JSON object: {error}") from error
        if envelope.type is None:
            raise Undecodable("no type") from error
        if envelope.type not in MESSAGE_TYPES:
            raise Undecodable(f"unknown type {envelope.type[:80]!r}") from error
        raise Undecodable(f"{envelope.type}: {error}") from error
