"""Lifecycle messages to rows, pure: the whole message is kept as canonical JSON, the known fields make its identity."""

from typing import Any
from uuid import UUID

import msgspec

from libs.exchange import wire
from libs.exchange.values import name_of, price_of, seconds, sent_at_of
from libs.marketdata import tables
from libs.marketdata.binary import content_hash
from libs.marketdata.rows import LifecycleRow
from libs.marketdata.units import ValueDoesNotFit

MARKET_FIELDS = frozenset(
    {
        "market_ticker", "event_type", "open_ts", "close_ts", "determination_ts", "settled_ts", "result",
        "settlement_value", "is_deactivated", "exchange_index", "price_level_structure", "price_ranges",
        "additional_metadata", "strike_type", "floor_strike", "cap_strike", "custom_strike", "yes_sub_title",
    }
)  # fmt: skip
METADATA_FIELDS = frozenset(
    {
        "name", "title", "yes_sub_title", "no_sub_title", "rules_primary", "rules_secondary", "can_close_early",
        "event_ticker", "expected_expiration_ts", "strike_type", "floor_strike", "cap_strike", "custom_strike",
    }
)  # fmt: skip
EVENT_FIELDS = frozenset(
    {
        "event_ticker", "exchange_index", "title", "subtitle", "collateral_return_type", "series_ticker",
        "strike_date", "strike_period", "fee_type_override", "fee_multiplier_override",
    }
)  # fmt: skip
"""The fields of lifecycle messages that enter content_hash. Part of the data model: changes only by migration."""


def canonical_json(value: object) -> str:
    """Write JSON with sorted keys and no spaces: equal values, equal text, on every machine."""
    return msgspec.json.encode(value, order="deterministic").decode()


def _hashed_body(body: dict[str, Any]) -> str:
    """Return the canonical JSON of the fields that belong to a lifecycle fact; unknown ones stay out of the hash."""
    fields = MARKET_FIELDS if "market_ticker" in body else EVENT_FIELDS
    known = {name: value for name, value in body.items() if name in fields}
    metadata = known.get("additional_metadata")
    if isinstance(metadata, dict):
        known["additional_metadata"] = {
            name: value for name, value in metadata.items() if name in METADATA_FIELDS
        }
    return canonical_json(known)


def lifecycle_row(
    message: wire.LifecycleMessage, received_at: int, connection: UUID, seq: int
) -> LifecycleRow:
    """Build the row of a lifecycle message; seq is the message's, or our running number where it has none.

    `body` is the whole `msg` as canonical JSON, unknown fields included; content_hash is over the known fields only.
    Event messages have the event's ticker and an empty event_type.

    Raises:
        ValueDoesNotFit: names the field.
    """
    details = message.details
    try:
        body: dict[str, Any] = msgspec.json.decode(message.msg)
        text = canonical_json(body)
    except (*wire.UNREADABLE, UnicodeEncodeError) as error:
        raise ValueDoesNotFit(f"msg: {error}") from error
    message_type = type(message).__struct_config__.tag
    assert isinstance(message_type, str)  # every message struct is tagged by its type
    if isinstance(details, wire.MarketLifecycleBody):
        market: wire.MarketLifecycleBody | None = details
        ticker, event_type = name_of("market_ticker", details.market_ticker), details.event_type
        event_type = name_of("event_type", event_type)
    else:
        market, ticker, event_type = None, name_of("event_ticker", details.event_ticker), ""
    sent_at = sent_at_of(message.sending_ts_ms)
    hashed = (message_type, event_type, ticker, _hashed_body(body))
    return LifecycleRow(
        observed_at=received_at if sent_at is None else sent_at,
        received_at=received_at,
        content_hash=content_hash(tables.MARKET_LIFECYCLE, hashed),
        seq=seq,
        sid=message.sid,
        observed_is_sent=sent_at is not None,
        connection=connection,
        message_type=message_type,
        event_type=event_type,
        ticker=ticker,
        body=text,
        sent_at=sent_at,
        open_at=seconds("open_ts", market.open_ts) if market else None,
        close_at=seconds("close_ts", market.close_ts) if market else None,
        determined_at=seconds("determination_ts", market.determination_ts) if market else None,
        settled_at=seconds("settled_ts", market.settled_ts) if market else None,
        settlement_value=_settlement(market.settlement_value) if market else None,
        result=_result(market.result) if market else None,
    )


def _settlement(text: str | None) -> int | None:
    return price_of("settlement_value", text) if text else None


def _result(text: str | None) -> str | None:
    return name_of("result", text) if text else None
