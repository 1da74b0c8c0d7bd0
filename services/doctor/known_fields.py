"""Every field of the exchange's messages that is known, used or not: what is beside them is news, and named in a warning.

libs/exchange/wire reads only what we use and passes over the rest, so that a new field costs nothing; here it is noticed.
"""

from collections.abc import Iterator
from typing import Any

from libs.exchange.lifecycle import EVENT_FIELDS, MARKET_FIELDS, METADATA_FIELDS

ENVELOPE = frozenset({"type", "sid", "seq", "id", "msg", "sending_ts_ms"})
_BOOK = frozenset({"market_ticker", "market_id"})
_MARKETS = frozenset({"market_tickers", "market_ids"})
_EVENTS = EVENT_FIELDS | {"event_type"}
BODIES: dict[str, frozenset[str]] = {
    "subscribed": frozenset({"channel", "sid"}),
    "unsubscribed": frozenset(),
    "ok": _MARKETS | {"channel", "sid"},
    "error": _MARKETS | {"code", "msg", "market_ticker"},
    "orderbook_snapshot": _BOOK | {"yes_dollars_fp", "no_dollars_fp"},
    "orderbook_delta": _BOOK
    | {"price_dollars", "delta_fp", "side", "ts", "ts_ms", "client_order_id", "subaccount"},
    "ticker": _BOOK
    | {
        "price_dollars", "yes_bid_dollars", "yes_ask_dollars", "volume_fp", "open_interest_fp", "dollar_volume",
        "dollar_open_interest", "yes_bid_size_fp", "yes_ask_size_fp", "last_trade_size_fp", "ts", "ts_ms", "time",
    },
    "trade": frozenset(
        {
            "trade_id", "market_ticker", "yes_price_dollars", "no_price_dollars", "count_fp", "taker_side",
            "taker_outcome_side", "taker_book_side", "is_block_trade", "ts", "ts_ms",
        }
    ),
    "market_lifecycle_v2": MARKET_FIELDS,
    "multivariate_market_lifecycle": MARKET_FIELDS,
    "event_lifecycle": _EVENTS,
    "event_fee_update": _EVENTS,
}  # fmt: skip


def unknown_fields(message: dict[str, Any]) -> Iterator[str]:
    """Yield `type.field` (or `type.msg.field`) of what is not known; nothing for a type that is not known itself."""
    kind = message.get("type")
    known = BODIES.get(kind) if isinstance(kind, str) else None
    if known is None:
        return
    yield from (f"{kind}.{name}" for name in message if name not in ENVELOPE)
    body = message.get("msg")
    for part in body if isinstance(body, list) else [body]:
        if isinstance(part, dict):
            yield from (f"{kind}.msg.{name}" for name in part if name not in known)
            metadata = part.get("additional_metadata")
            if isinstance(metadata, dict):
                yield from (
                    f"{kind}.msg.additional_metadata.{name}"
                    for name in metadata
                    if name not in METADATA_FIELDS
                )
