"""The messages of the lifecycle channels: of markets, combos and events. `msg` is kept whole beside the fields we read."""

import msgspec

from libs.exchange.envelope import Seq, Sid


class MarketLifecycleBody(msgspec.Struct, gc=False):
    """The fields of a market's lifecycle message that have a column; *_ts are Unix seconds."""

    market_ticker: str
    event_type: str
    open_ts: int | None = None
    close_ts: int | None = None
    determination_ts: int | None = None
    settled_ts: int | None = None
    settlement_value: str | None = None
    result: str | None = None


class EventBody(msgspec.Struct, gc=False):
    """What names an event; the rest stays in the raw message."""

    event_ticker: str
    series_ticker: str | None = None


_market_body = msgspec.json.Decoder(MarketLifecycleBody)
_event_body = msgspec.json.Decoder(EventBody)


class _MarketMessage(msgspec.Struct, gc=False):
    """`msg` stays raw, for the row's body; `details` reads it typed (checked once when decoded)."""

    msg: msgspec.Raw
    sid: Sid
    seq: Seq | None = None
    sending_ts_ms: int | None = None

    def __post_init__(self) -> None:
        _market_body.decode(self.msg)

    @property
    def details(self) -> MarketLifecycleBody:
        return _market_body.decode(self.msg)


class MarketLifecycle(_MarketMessage, tag_field="type", tag="market_lifecycle_v2", gc=False):
    """Something happened to a market (not a combo)."""


class MultivariateLifecycle(
    _MarketMessage, tag_field="type", tag="multivariate_market_lifecycle", gc=False
):
    """Something happened to a combo market."""


class _EventMessage(msgspec.Struct, gc=False):
    """`msg` stays raw, for the row's body; `details` reads it typed (checked once when decoded)."""

    msg: msgspec.Raw
    sid: Sid
    seq: Seq | None = None
    sending_ts_ms: int | None = None

    def __post_init__(self) -> None:
        _event_body.decode(self.msg)

    @property
    def details(self) -> EventBody:
        return _event_body.decode(self.msg)


class EventLifecycle(_EventMessage, tag_field="type", tag="event_lifecycle", gc=False):
    """An event was created."""


class EventFeeUpdate(_EventMessage, tag_field="type", tag="event_fee_update", gc=False):
    """An event's fees changed."""


LifecycleMessage = MarketLifecycle | MultivariateLifecycle | EventLifecycle | EventFeeUpdate
