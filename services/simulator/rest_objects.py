"""The exchange's REST objects: today's field names, decimal strings, RFC 3339 times.

Markets are written out by hand: a listing of a million of them is a gigabyte of JSON.
"""

import functools
import json
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quoted

from libs.marketdata.units import DAY, PRICE_ONE, SECOND, format_rfc3339
from services.simulator import lifecycle
from services.simulator.book import Ladder
from services.simulator.changes import Trade
from services.simulator.frames import format_price
from services.simulator.instruments import Event, PriceStructure, Series
from services.simulator.listing import Listing

Json = dict[str, object]


def market(listing: Listing, now: int) -> str:
    """Write the market object as of `now`, microseconds."""
    instrument = listing.instrument
    event, state = instrument.event, listing.state
    close_time = rfc3339(listing.close_at)
    sub_title = quoted(listing.sub_title)
    return (
        f'{{"ticker":{quoted(instrument.ticker)},"event_ticker":{quoted(event.ticker)}'
        f',"market_type":"binary","title":{quoted(f"{event.title}: {listing.sub_title}?")}'
        f',"yes_sub_title":{sub_title},"no_sub_title":{quoted(f"Not {listing.sub_title}")}'
        f',"created_time":"{rfc3339(instrument.created_at)}"'
        f',"updated_time":"{rfc3339(listing.updated_at)}","open_time":"{rfc3339(instrument.open_at)}"'
        f',"close_time":"{close_time}","expected_expiration_time":"{close_time}"'
        f',"latest_expiration_time":"{close_time}","settlement_timer_seconds":5'
        f',"status":"{listing.status(now)}","notional_value_dollars":"1.0000"'
        ',"previous_yes_bid_dollars":"0.0000","previous_yes_ask_dollars":"0.0000"'
        f',"previous_price_dollars":"0.0000","result":"{listing.result}","can_close_early":true'
        f',"expiration_value":"{listing.result}","rules_primary":{quoted(lifecycle.rules(instrument))}'
        f',"rules_secondary":"",{_structure(listing.structure)}'
        f',"exchange_index":{1 if instrument.is_combo else 0},"settlement_bounds_type":"default"'
        f',"yes_bid_dollars":"{format_price(state.yes_bid)}"'
        f',"yes_ask_dollars":"{format_price(state.yes_ask)}"'
        f',"no_bid_dollars":"{format_price(PRICE_ONE - state.yes_ask)}"'
        f',"no_ask_dollars":"{format_price(PRICE_ONE - state.yes_bid)}"'
        f',"yes_bid_size_fp":"{_size(state.yes_bid_size)}"'
        f',"yes_ask_size_fp":"{_size(state.yes_ask_size)}"'
        f',"last_price_dollars":"{format_price(state.price)}","volume_fp":"{_size(state.volume)}"'
        f',"volume_24h_fp":"{_size(state.volume)}","open_interest_fp":"{_size(state.open_interest)}"'
        f"{_outcome(listing)}}}"
    )


def _outcome(listing: Listing) -> str:
    """Write what a market has only after its determination."""
    text = ""
    if listing.determined_at is not None:
        value = "1.0000" if listing.result == "yes" else "0.0000"
        text += f',"settlement_value_dollars":"{value}"'
    if listing.settled_at is not None:
        text += f',"settlement_ts":"{rfc3339(listing.settled_at)}"'
    return text


def markets(texts: Iterable[str], cursor: str) -> bytes:
    """Write the answer of a listing of markets."""
    return f'{{"markets":[{",".join(texts)}],"cursor":"{cursor}"}}'.encode()


@functools.lru_cache(maxsize=64)
def _structure(structure: PriceStructure) -> str:
    ranges = json.dumps(lifecycle.price_ranges(structure), separators=(",", ":"))
    return f'"price_level_structure":{quoted(structure.name)},"price_ranges":{ranges}'


@functools.lru_cache(maxsize=4_096)
def _day(days: int) -> str:
    return format_rfc3339(days * DAY)[:11]


def rfc3339(micros: int) -> str:
    """Format microseconds as the exchange does; the same as units.format_rfc3339, sooner."""
    seconds, fraction = divmod(micros, SECOND)
    days, seconds = divmod(seconds, 86_400)
    minutes, second = divmod(seconds, 60)
    tail = f".{fraction:06d}".rstrip("0") if fraction else ""
    return f"{_day(days)}{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}{tail}Z"


def _size(size: int) -> str:
    """Format a size that is not negative."""
    return f"{size // 100}.{size % 100:02d}" if size else "0.00"


def event(item: Event) -> Json:
    """Return the event object, without markets."""
    body: Json = {
        "event_ticker": item.ticker,
        "series_ticker": item.series.ticker,
        "title": item.title,
        "sub_title": item.sub_title,
        "collateral_return_type": "",
        "mutually_exclusive": False,
        "category": item.series.category,
        "settlement_sources": _SOURCES,
        "last_updated_ts": rfc3339(item.updated_at or item.created_at),
        "exchange_index": 1 if item.ticker.startswith("KXMVE") else 0,
    }
    if item.fee is not None:
        body["fee_type_override"], body["fee_multiplier_override"] = item.fee
    return body


def event_text(item: Event, nested: Iterable[str] | None = None) -> str:
    """Write the event object, with its markets nested when they are given."""
    text = json.dumps(event(item), separators=(",", ":"))
    return text if nested is None else f'{text[:-1]},"markets":[{",".join(nested)}]}}'


_SOURCES = [{"name": "Simulator", "url": "https://example.invalid/settlement"}]


def series(item: Series, updated_at: int) -> Json:
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
        "last_updated_ts": rfc3339(updated_at),
        "exchange_index": 0,
    }


def orderbook(yes: Ladder, no: Ladder, depth: int = 0) -> Json:
    """Return both bid ladders, best level last; `depth` keeps that many best ones, 0 all."""
    return {"yes_dollars": _levels(yes, depth), "no_dollars": _levels(no, depth)}


def _levels(ladder: Ladder, depth: int) -> list[list[str]]:
    kept = ladder[-depth:] if depth else ladder
    return [[format_price(price), _size(size)] for price, size in kept]


def trade(item: Trade) -> Json:
    """Return the trade object of the tape; its time has microseconds."""
    outcome = "yes" if item.taker_side else "no"
    return {
        "trade_id": item.trade_id,
        "ticker": item.instrument.ticker,
        "count_fp": _size(item.size),
        "yes_price_dollars": format_price(item.yes_price),
        "no_price_dollars": format_price(item.no_price),
        "taker_side": outcome,
        "taker_outcome_side": outcome,
        "taker_book_side": "bid" if item.taker_side else "ask",
        "created_time": rfc3339(item.at),
        "is_block_trade": item.is_block,
    }
