"""Small builders of what the registry reads."""

import json
from typing import Any
from uuid import UUID

from libs.marketdata.capture import CaptureFilter
from libs.marketdata.rows import LifecycleRow
from libs.store.catalogue import MarketState
from services.registry.catalogue import Rules
from services.registry.listing import ListedMarket, read_market
from services.registry.slots import slot_name

NOW = 1_795_000_000_000_000
SECOND = 1_000_000
CONNECTION = UUID(int=7)


def rules(**changes: Any) -> Rules:
    """Rules of eight slots that let everything pass."""
    values: dict[str, Any] = {
        "capture": CaptureFilter(), "slots": 8, "ahead": 3600 * SECOND, "categories": {}, "series_by_event": {},
    }  # fmt: skip
    return Rules(**(values | changes))


def listed(ticker: str = "KXA-26-T1", **changes: Any) -> ListedMarket:
    """A market of a listing, open all of November 2026."""
    body: dict[str, Any] = {
        "ticker": ticker, "event_ticker": "KXA-26", "status": "active", "open_time": "2026-11-01T00:00:00Z",
        "close_time": "2026-12-01T00:00:00Z", "created_time": "2026-11-01T00:00:00Z",
        "updated_time": "2026-11-01T00:00:01Z", "title": "t",
    }  # fmt: skip
    return read_market(body | changes, NOW)


def state(ticker: str = "KXA-26-T1", **changes: Any) -> MarketState:
    """What the catalogue knows of that market."""
    market = listed(ticker)
    return MarketState(
        ticker=ticker, event_ticker="KXA-26", series_ticker="KXA", status="active", is_combo=False, wanted=True,
        slot=slot_name(ticker, 8), open_at=market.open_at, close_at=market.close_at, created_at=market.created_at,
        updated_at=market.updated_at, content_hash=market.content_hash,
    )._replace(**changes)  # fmt: skip


def heard(
    event_type: str, ticker: str = "KXA-26-T1", at: int = NOW, **changes: Any
) -> LifecycleRow:
    """A lifecycle row observed at `at`."""
    body = changes.pop("body", {"event_type": event_type, "market_ticker": ticker})
    return LifecycleRow(
        observed_at=at, received_at=at, content_hash=0, seq=1, sid=4, observed_is_sent=True, connection=CONNECTION,
        message_type="market_lifecycle_v2", event_type=event_type, ticker=ticker, body=json.dumps(body), sent_at=at,
        open_at=None, close_at=None, determined_at=None, settled_at=None, settlement_value=None, result=None,
    )._replace(**changes)  # fmt: skip
