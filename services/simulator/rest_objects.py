"""The exchange's REST objects: today's field names, decimal strings, RFC 3339 times."""

from collections.abc import Iterable

from libs.marketdata.units import PRICE_ONE, format_price, format_rfc3339, format_size
from services.simulator import lifecycle
from services.simulator.book import Ladder
from services.simulator.changes import Trade
from services.simulator.instruments import Event, Series
from services.simulator.listing import Listing

Json = dict[str, object]


def market(listing: Listing, now: int) -> Json:
    """Return the market object as of `now`, microseconds."""
    instrument = listing.instrument
    close_time = format_rfc3339(listing.close_at)
    body: Json = {
        "ticker": instrument.ticker,
        "event_ticker": instrument.event.ticker,
        "market_type": "binary",
        "title": f"{instrument.event.title}: {instrument.sub_title}?",
        "yes_sub_title": instrument.sub_title,
        "no_sub_title": f"Not {instrument.sub_title}",
        "created_time": format_rfc3339(instrument.created_at),
        "updated_time": format_rfc3339(listing.updated_at),
        "open_time": format_rfc3339(instrument.open_at),
        "close_time": close_time,
        "expected_expiration_time": close_time,
        "latest_expiration_time": close_time,
        "settlement_timer_seconds": 5,
        "status": listing.status(now),
        "notional_value_dollars": "1.0000",
        "previous_yes_bid_dollars": "0.0000",
        "previous_yes_ask_dollars": "0.0000",
        "previous_price_dollars": "0.0000",
        "result": listing.result,
        "can_close_early": True,
        "expiration_value": listing.result,
        "rules_primary": lifecycle.rules(instrument),
        "rules_secondary": "",
        "price_level_structure": instrument.event.series.structure.name,
        "price_ranges": lifecycle.price_ranges(instrument.event.series.structure),
        "exchange_index": 1 if instrument.is_combo else 0,
        "settlement_bounds_type": "default",
    }
    body |= _trading(listing)
    if listing.determined_at is not None:
        body["settlement_value_dollars"] = "1.0000" if listing.result == "yes" else "0.0000"
    if listing.settled_at is not None:
        body["settlement_ts"] = format_rfc3339(listing.settled_at)
    return body


def _trading(listing: Listing) -> Json:
    state = listing.state
    return {
        "yes_bid_dollars": format_price(state.yes_bid),
        "yes_ask_dollars": format_price(state.yes_ask),
        "no_bid_dollars": format_price(PRICE_ONE - state.yes_ask),
        "no_ask_dollars": format_price(PRICE_ONE - state.yes_bid),
        "yes_bid_size_fp": format_size(state.yes_bid_size),
        "yes_ask_size_fp": format_size(state.yes_ask_size),
        "last_price_dollars": format_price(state.price),
        "volume_fp": format_size(state.volume),
        "volume_24h_fp": format_size(state.volume),
        "open_interest_fp": format_size(state.open_interest),
    }


def event(item: Event, markets: Iterable[Json] | None = None) -> Json:
    """Return the event object, with its markets nested when they are given."""
    body: Json = {
        "event_ticker": item.ticker,
        "series_ticker": item.series.ticker,
        "title": item.title,
        "sub_title": item.sub_title,
        "collateral_return_type": "",
        "mutually_exclusive": False,
        "category": item.series.category,
        "settlement_sources": _SOURCES,
        "last_updated_ts": format_rfc3339(item.created_at),
        "exchange_index": 1 if item.ticker.startswith("KXMVE") else 0,
    }
    if markets is not None:
        body["markets"] = list(markets)
    return body


_SOURCES = [{"name": "Simulator", "url": "https://example.invalid/settlement"}]


def series(item: Series, created_at: int) -> Json:
    """Return the series object."""
    return {
        "ticker": item.ticker,
        "frequency": "custom",
        "title": item.title,
        "category": item.category,
        "categories": [item.category],
        "tags": [item.category],
        "settlement_sources": _SOURCES,
        "contract_url": "https://example.invalid/contract",
        "contract_terms_url": "https://example.invalid/terms",
        "fee_type": "quadratic",
        "fee_multiplier": 1,
        "additional_prohibitions": None,
        "last_updated_ts": format_rfc3339(created_at),
        "exchange_index": 0,
    }


def orderbook(yes: Ladder, no: Ladder, depth: int = 0) -> Json:
    """Return both bid ladders, best level last; `depth` keeps that many best ones, 0 all."""
    return {"yes_dollars": _levels(yes, depth), "no_dollars": _levels(no, depth)}


def _levels(ladder: Ladder, depth: int) -> list[list[str]]:
    kept = ladder[-depth:] if depth else ladder
    return [[format_price(price), format_size(size)] for price, size in kept]


def trade(item: Trade) -> Json:
    """Return the trade object of the tape; its time has microseconds."""
    outcome = "yes" if item.taker_side else "no"
    return {
        "trade_id": item.trade_id,
        "ticker": item.instrument.ticker,
        "count_fp": format_size(item.size),
        "yes_price_dollars": format_price(item.yes_price),
        "no_price_dollars": format_price(item.no_price),
        "taker_side": outcome,
        "taker_outcome_side": outcome,
        "taker_book_side": "bid" if item.taker_side else "ask",
        "created_time": format_rfc3339(item.at),
        "is_block_trade": False,
    }
