"""Reading REST objects: canonical bodies without what trading moves."""

import json
from pathlib import Path

import pytest

from libs.marketdata.units import DAY, parse_rfc3339
from services.registry.listing import (
    ListingInvalid,
    canonical,
    read_event,
    read_market,
    read_series,
)

RECORDED = Path(__file__).parents[3] / ".." / "shared" / "kalshi" / "recorded"
NOW = 1_795_000_000_000_000

MARKET = {
    "ticker": "KXA-26-T1.5", "event_ticker": "KXA-26", "status": "active", "open_time": "2026-06-11T05:39:29Z",
    "close_time": "2026-06-25T16:00:00Z", "created_time": "2026-06-11T05:12:22.338653Z",
    "updated_time": "2026-06-11T05:39:31.28563Z", "yes_bid_dollars": "0.4700", "yes_bid_size_fp": "3.00",
    "volume_fp": "2.00", "notional_value_dollars": "1.0000", "rules_primary": "If ü wins",
}  # fmt: skip


def test_trading_does_not_change_a_market() -> None:
    """Prices, sizes, volumes and the update stamp are no part of body and hash; everything else is."""
    before = read_market(MARKET, NOW)
    traded = MARKET | {
        "yes_bid_dollars": "0.99", "volume_24h_fp": "9", "open_interest_fp": "8", "liquidity_dollars": "7",
        "last_price_dollars": "0.5", "previous_price_dollars": "0.4", "updated_time": "2026-06-12T00:00:00Z",
    }  # fmt: skip
    after = read_market(traded, NOW)
    assert (after.body, after.content_hash) == (before.body, before.content_hash)
    assert after.updated_at == parse_rfc3339("2026-06-12T00:00:00Z")
    changed = read_market(MARKET | {"rules_primary": "If v wins"}, NOW)
    assert changed.content_hash != before.content_hash
    assert json.loads(before.body)["notional_value_dollars"] == "1.0000"
    assert "yes_bid_size_fp" not in json.loads(before.body)


def test_body_is_canonical() -> None:
    """The order of keys does not matter; text stays readable."""
    assert canonical({"b": 1, "a": "ü"}) == canonical({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'


def test_times_of_a_market_are_microseconds() -> None:
    """Open, close, creation and update, each to the microsecond; absent ones are None."""
    market = read_market(MARKET, NOW)
    assert market.created_at == parse_rfc3339("2026-06-11T05:12:22.338653Z")
    assert market.updated_at == parse_rfc3339("2026-06-11T05:39:31.28563Z")
    bare = {"ticker": "A-B", "event_ticker": "A", "status": "active", "close_time": ""}
    assert read_market(bare, NOW).close_at is None
    assert read_market(bare, NOW).updated_at == NOW - NOW % DAY


def test_combos_are_known_by_collection_or_prefix() -> None:
    """A combo market is one of a multivariate collection, or named KXMVE..."""
    assert not read_market(MARKET, NOW).is_combo
    assert read_market(MARKET | {"mve_collection_ticker": "X"}, NOW).is_combo
    assert read_market(MARKET | {"ticker": "KXMVEA-1-2"}, NOW).is_combo


def test_events_leave_nested_markets_out_and_know_their_series() -> None:
    """An event's body has no markets; its series is what it says, else the ticker's first part."""
    event = {"event_ticker": "KXA-26", "series_ticker": "KXSER", "markets": [MARKET], "title": "t"}
    read = read_event(event, NOW)
    assert (read.parent, json.loads(read.body).get("markets")) == ("KXSER", None)
    assert read_event({"event_ticker": "KXA-26"}, NOW).parent == "KXA"


def test_series_have_a_category() -> None:
    """The category decides with the capture filter; volume is trading."""
    series = read_series({"ticker": "KXA", "category": "Sports", "volume_fp": "1"}, NOW)
    assert (series.category, series.body) == ("Sports", '{"category":"Sports","ticker":"KXA"}')
    assert read_series({"ticker": "KXA"}, NOW).category is None


@pytest.mark.parametrize("missing", ["ticker", "event_ticker", "status"])
def test_a_market_without_its_key_is_refused(missing: str) -> None:
    """What the catalogue is keyed by must be there."""
    with pytest.raises(ListingInvalid, match=missing):
        read_market({key: value for key, value in MARKET.items() if key != missing}, NOW)


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded material is not here")
def test_recorded_markets_are_read() -> None:
    """Real answers of the exchange: all markets of the recorded pages, with exact times."""
    pages = sorted((RECORDED / "fortuna-demo-2026-06-11").glob("markets__page*[0-9].json"))
    markets = [read_market(m, NOW) for p in pages for m in json.loads(p.read_text())["markets"]]
    assert len(markets) > 2
    assert all(market.created_at and market.close_at for market in markets)
