"""Bytes of what the exchange says: bodies encoded once per change, envelopes put around them per subscriber.

A frame is `{"type":..,"sid":..,"seq":..,"sending_ts_ms":..,"msg":BODY}` and a newline; only the envelope differs
between connections, so it is concatenated, never encoded again.
"""

import datetime as dt
import functools

import msgspec

from libs.marketdata.units import PRICE_ONE, SECOND, format_rfc3339, format_size
from libs.marketdata.units import format_price as _format_price
from services.simulator.book import Ladder
from services.simulator.changes import Delta, Lifecycle, Ticker, Trade

format_price = functools.cache(_format_price)
"""Prices are at most 100,001 different ones: a bounded cache in spite of its name."""


encode = msgspec.json.Encoder().encode
"""Encode a small message the plain way: compact, keys in their own order."""


@functools.lru_cache(maxsize=4)
def _second_text(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_ms(millis: int) -> str:
    """Format milliseconds since 1970 as the exchange does since October 2026: trailing zeros trimmed."""
    seconds, fraction = divmod(millis, 1000)
    tail = f".{fraction:03d}".rstrip("0") if fraction else ""
    return f"{_second_text(seconds)}{tail}Z"


def delta_body(delta: Delta, use_yes_price: bool) -> bytes:
    """Encode a delta; with `use_yes_price` a no price stands on the yes scale."""
    price = PRICE_ONE - delta.price if use_yes_price and not delta.side else delta.price
    instrument = delta.instrument
    millis = delta.at // 1000
    return (
        f'{{"market_ticker":"{instrument.ticker}","market_id":"{instrument.market_id}"'
        f',"price_dollars":"{format_price(price)}","delta_fp":"{format_size(delta.size_delta)}"'
        f',"side":"{"yes" if delta.side else "no"}","ts":"{rfc3339_ms(millis)}","ts_ms":{millis}}}'
    ).encode()


def snapshot_body(
    ticker: str, market_id: str, yes: Ladder, no: Ladder, use_yes_price: bool
) -> bytes:
    """Encode a book; a side without levels has no key at all."""
    body: dict[str, object] = {"market_ticker": ticker, "market_id": market_id}
    if yes:
        body["yes_dollars_fp"] = [[format_price(price), format_size(size)] for price, size in yes]
    if no:
        # Recorded yes-scale ladders keep the order of the own leg: best bid last, prices falling.
        body["no_dollars_fp"] = [
            [format_price(PRICE_ONE - price if use_yes_price else price), format_size(size)]
            for price, size in no
        ]
    return encode(body)


def trade_body(trade: Trade) -> bytes:
    """Encode a trade; the deprecated fields are still sent."""
    millis = trade.at // 1000
    outcome = "yes" if trade.taker_side else "no"
    return encode(
        {
            "trade_id": trade.trade_id,
            "market_ticker": trade.instrument.ticker,
            "yes_price_dollars": format_price(trade.yes_price),
            "no_price_dollars": format_price(trade.no_price),
            "count_fp": format_size(trade.size),
            "taker_side": outcome,
            "taker_outcome_side": outcome,
            "taker_book_side": "bid" if trade.taker_side else "ask",
            "is_block_trade": trade.is_block,
            "ts": millis // 1000,
            "ts_ms": millis,
        }
    )


def ticker_body(ticker: Ticker) -> bytes:
    """Encode a ticker; its times are those of the market's last change."""
    state = ticker.state
    millis = ticker.changed_at // 1000
    return encode(
        {
            "market_ticker": ticker.instrument.ticker,
            "market_id": ticker.instrument.market_id,
            "price_dollars": format_price(state.price),
            "yes_bid_dollars": format_price(state.yes_bid),
            "yes_ask_dollars": format_price(state.yes_ask),
            "yes_bid_size_fp": format_size(state.yes_bid_size),
            "yes_ask_size_fp": format_size(state.yes_ask_size),
            "last_trade_size_fp": format_size(state.last_trade_size),
            "volume_fp": format_size(state.volume),
            "open_interest_fp": format_size(state.open_interest),
            "dollar_volume": state.dollar_volume,
            "dollar_open_interest": state.dollar_open_interest,
            "ts": ticker.changed_at // SECOND,
            "ts_ms": millis,
            "time": format_rfc3339(ticker.changed_at),
        }
    )


def lifecycle_body(change: Lifecycle) -> bytes:
    """Encode a lifecycle message."""
    return change.text.encode()
