"""Lifecycle messages of markets and events, with today's fields only; business times in Unix seconds."""

import functools

from libs.marketdata.units import SECOND, format_price
from services.simulator.changes import Lifecycle
from services.simulator.instruments import Event, Instrument, PriceStructure

MARKET_CHANNEL = "market_lifecycle_v2"
COMBO_CHANNEL = "multivariate_market_lifecycle"
EVENT_MESSAGE = "event_lifecycle"
FEE_MESSAGE = "event_fee_update"


@functools.lru_cache(maxsize=64)
def price_ranges(structure: PriceStructure) -> list[dict[str, str]]:
    """Return the ranges as the exchange writes them."""
    return [
        {
            "start": format_price(band.start),
            "end": format_price(band.end),
            "step": format_price(band.step),
        }
        for band in structure.ranges
    ]


def rules(instrument: Instrument) -> str:
    """Return the primary rule of a market."""
    return (
        f"If {instrument.sub_title} in {instrument.event.title}, then the market resolves to Yes."
    )


def created(instrument: Instrument, at: int) -> Lifecycle:
    """Announce a new market."""
    structure = instrument.event.series.structure
    body: dict[str, object] = {
        "exchange_index": 1 if instrument.is_combo else 0,
        "open_ts": instrument.open_at // SECOND,
        "close_ts": instrument.close_at // SECOND,
        "price_level_structure": structure.name,
    }
    if not instrument.is_combo:
        body["price_ranges"] = price_ranges(structure)
    body["additional_metadata"] = {
        "name": instrument.sub_title,
        "title": f"{instrument.event.title}: {instrument.sub_title}?",
        "yes_sub_title": instrument.sub_title,
        "no_sub_title": f"Not {instrument.sub_title}",
        "rules_primary": rules(instrument),
        "rules_secondary": "",
        "can_close_early": True,
        "event_ticker": instrument.event.ticker,
        "expected_expiration_ts": instrument.close_at // SECOND,
    }
    return _market(instrument, at, "created", body)


def close_date_updated(instrument: Instrument, at: int, close_at: int) -> Lifecycle:
    """Announce another close time, microseconds."""
    return _market(instrument, at, "close_date_updated", {"close_ts": close_at // SECOND})


def structure_updated(instrument: Instrument, at: int, structure: PriceStructure) -> Lifecycle:
    """Announce another grid of prices; a combo's message lacks the ranges, as all of its channel do."""
    body: dict[str, object] = {"price_level_structure": structure.name}
    if not instrument.is_combo:
        body["price_ranges"] = price_ranges(structure)
    return _market(instrument, at, "price_level_structure_updated", body)


def metadata_updated(instrument: Instrument, at: int, yes_sub_title: str) -> Lifecycle:
    """Announce another sub-title, in the message's own flat shape."""
    body: dict[str, object] = {"yes_sub_title": yes_sub_title}
    strike = instrument.ticker.rpartition("-T")[2]
    if strike.endswith(".99"):
        body |= {"strike_type": "greater", "floor_strike": float(strike)}
    return _market(instrument, at, "metadata_updated", body)


def event_fee_updated(event: Event, at: int, fee: tuple[str, float] | None) -> Lifecycle:
    """Announce an event's own fees, or, with None, that they are the series' again."""
    fee_type, multiplier = fee if fee is not None else (None, None)
    body: dict[str, object] = {
        "event_ticker": event.ticker,
        "fee_type_override": fee_type,
        "fee_multiplier_override": multiplier,
    }
    return Lifecycle(at, event.ticker, MARKET_CHANNEL, FEE_MESSAGE, "", body)


def determined(instrument: Instrument, at: int, result: str) -> Lifecycle:
    """Announce the outcome: result is "yes" or "no"."""
    body: dict[str, object] = {
        "result": result,
        "settlement_value": "1.0000" if result == "yes" else "0.0000",
        "determination_ts": at // SECOND,
    }
    return _market(instrument, at, "determined", body)


def settled(instrument: Instrument, at: int) -> Lifecycle:
    """Announce that the market was paid out."""
    return _market(instrument, at, "settled", {"settled_ts": at // SECOND})


def paused(instrument: Instrument, at: int, is_deactivated: bool) -> Lifecycle:
    """Announce that trading pauses (`deactivated`) or goes on (`activated`)."""
    event_type = "deactivated" if is_deactivated else "activated"
    return _market(instrument, at, event_type, {"is_deactivated": is_deactivated})


def event_created(event: Event, at: int) -> Lifecycle:
    """Announce a new event."""
    body: dict[str, object] = {
        "event_ticker": event.ticker,
        "exchange_index": 0,
        "title": event.title,
        "subtitle": event.sub_title,
        "collateral_return_type": "",
        "series_ticker": event.series.ticker,
    }
    return Lifecycle(at, event.ticker, MARKET_CHANNEL, EVENT_MESSAGE, "", body)


def _market(instrument: Instrument, at: int, event_type: str, more: dict[str, object]) -> Lifecycle:
    channel = COMBO_CHANNEL if instrument.is_combo else MARKET_CHANNEL
    body: dict[str, object] = {"market_ticker": instrument.ticker, "event_type": event_type, **more}
    return Lifecycle(at, instrument.ticker, channel, channel, event_type, body)
