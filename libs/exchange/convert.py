"""Typed messages to exact values and rows, pure; everything that needs no memory of the stream.

Prices leave here in the bid's own leg, whatever the subscription's orientation was; times are whole milliseconds in
microseconds. A value that does not fit raises ValueDoesNotFit and names the field: it costs that one message.
"""

import itertools
from collections.abc import Sequence
from uuid import UUID

from libs.exchange import wire
from libs.exchange.lifecycle import canonical_json, lifecycle_row
from libs.exchange.rest_wire import RestBook, RestTrade
from libs.exchange.values import (
    IS_YES,
    amount_of,
    milliseconds,
    moment,
    name_of,
    price_of,
    rfc3339_of,
    sent_at_of,
    size_of,
    taker_is_yes,
    whole,
)
from libs.marketdata import tables
from libs.marketdata.binary import content_hash
from libs.marketdata.rows import Ladder, SnapshotRow, TickerRow, TradeRow
from libs.marketdata.units import PRICE_ONE, ValueDoesNotFit

__all__ = [
    "book_hash", "canonical_json", "delta_values", "is_crossed", "ladders", "lifecycle_row", "name_of", "price_of",
    "rest_ladders", "sent_at_of", "size_of", "snapshot_row", "snapshot_row_from_rest", "ticker_row", "trade_row",
    "trade_row_from_rest",
]  # fmt: skip


# --- order book ----------------------------------------------------------------------------------


def delta_values(
    message: wire.OrderbookDelta, use_yes_price: bool
) -> tuple[str, int, bool, int, int]:
    """Return (ticker, exchange_ts, side, price, size_delta) of a delta; side TRUE = yes, price in that side's own leg.

    Raises:
        ValueDoesNotFit: names the field.
    """
    body = message.msg
    side = IS_YES.get(body.side)
    if side is None:
        raise ValueDoesNotFit(f"side: {body.side[:40]!r}")
    price = price_of("price_dollars", body.price_dollars)
    if use_yes_price and not side:
        price = PRICE_ONE - price
    return (
        name_of("market_ticker", body.market_ticker),
        moment(body.ts_ms, "ts", body.ts),
        side,
        price,
        size_of("delta_fp", body.delta_fp),
    )


def _ladder(field: str, levels: Sequence[tuple[str, str]] | None, flip: bool) -> Ladder:
    ladder = []
    for price_text, size_text in levels or ():
        price = price_of(field, price_text)
        ladder.append((PRICE_ONE - price if flip else price, amount_of(field, size_text)))
    ladder.sort()
    for lower, upper in itertools.pairwise(ladder):
        if lower[0] == upper[0]:
            raise ValueDoesNotFit(f"{field}: price twice: {lower[0]}")
    return tuple(ladder)


def ladders(snapshot: wire.OrderbookSnapshot, use_yes_price: bool) -> tuple[Ladder, Ladder]:
    """Return the yes and no bid ladders of a snapshot, each in its own leg, ascending by price.

    Raises:
        ValueDoesNotFit: names the field.
    """
    body = snapshot.msg
    return (
        _ladder("yes_dollars_fp", body.yes_dollars_fp, flip=False),
        _ladder("no_dollars_fp", body.no_dollars_fp, flip=use_yes_price),
    )


def is_crossed(yes: Ladder, no: Ladder) -> bool:
    """Tell whether the best bids of both legs cost more than a dollar: then the orientation was read wrongly."""
    return bool(yes and no) and yes[-1][0] + no[-1][0] > PRICE_ONE


def book_hash(yes: Ladder | None, no: Ladder | None) -> int:
    """Hash a book's two ladders; equal books have equal hashes, from the socket or by REST."""
    return content_hash(tables.ORDERBOOK_SNAPSHOTS, (yes, no))


def snapshot_row(
    message: wire.OrderbookSnapshot,
    received_at: int,
    connection: UUID,
    use_yes_price: bool,
    *,
    is_first: bool,
    cut_exchange_ts: int | None,
    cut_pos: int | None,
) -> SnapshotRow:
    """Build the row of a book seen on the socket; the cut names the last delta before it in its stream.

    Raises:
        ValueDoesNotFit: names the field.
    """
    yes, no = ladders(message, use_yes_price)
    sent_at = sent_at_of(message.sending_ts_ms)
    return SnapshotRow(
        observed_at=received_at if sent_at is None else sent_at,
        received_at=received_at,
        content_hash=book_hash(yes, no),
        observed_is_sent=sent_at is not None,
        is_first=is_first,
        source="ws",
        ticker=name_of("market_ticker", message.msg.market_ticker),
        connection=connection,
        sid=message.sid,
        seq=message.seq,
        sent_at=sent_at,
        requested_at=None,
        cut_exchange_ts=cut_exchange_ts,
        cut_pos=cut_pos,
        yes=yes,
        no=no,
    )


def rest_ladders(book: RestBook) -> tuple[Ladder, Ladder]:
    """Return the yes and no bid ladders of a REST book, ascending by price; REST quotes each side in its own leg.

    Raises:
        ValueDoesNotFit: names the field.
    """
    sides = book.orderbook_fp
    return (
        _ladder("yes_dollars", sides.yes_dollars, flip=False),
        _ladder("no_dollars", sides.no_dollars, flip=False),
    )


def snapshot_row_from_rest(
    ticker: str,
    book: RestBook,
    requested_at: int,
    received_at: int,
    last_hash: int | None = None,
) -> SnapshotRow:
    """Build the row of a REST book; without ladders when its hash is last_hash, the market's last stored one.

    observed_at is our receive time: the answer does not say when it was made, and may be 15 s old.

    Raises:
        ValueDoesNotFit: names the field.
    """
    yes, no = rest_ladders(book)
    digest = book_hash(yes, no)
    is_known = digest == last_hash
    return SnapshotRow(
        observed_at=received_at,
        received_at=received_at,
        content_hash=digest,
        observed_is_sent=False,
        is_first=False,
        source="rest",
        ticker=name_of("ticker", ticker),
        connection=None,
        sid=None,
        seq=None,
        sent_at=None,
        requested_at=requested_at,
        cut_exchange_ts=None,
        cut_pos=None,
        yes=None if is_known else yes,
        no=None if is_known else no,
    )


# --- trades and tickers --------------------------------------------------------------------------


def _trade_time(body: wire.TradeBody) -> int:
    """Return exchange_ts of a trade: ts_ms, else `ts`, which has whole seconds (a trade is known by its id alone)."""
    if body.ts_ms is None and isinstance(body.ts, int):
        return milliseconds("ts", body.ts * 1000)
    return moment(body.ts_ms, "ts", body.ts)


def trade_row(message: wire.Trade, received_at: int, connection: UUID) -> TradeRow:
    """Build the row of a trade seen on the socket.

    Raises:
        ValueDoesNotFit: names the field.
    """
    body = message.msg
    return TradeRow(
        exchange_ts=_trade_time(body),
        received_at=received_at,
        size=amount_of("count_fp", body.count_fp),
        yes_price=price_of("yes_price_dollars", body.yes_price_dollars),
        no_price=price_of("no_price_dollars", body.no_price_dollars),
        taker_side=taker_is_yes(body.taker_outcome_side, body.taker_side, body.taker_book_side),
        trade_id=name_of("trade_id", body.trade_id),
        ticker=name_of("market_ticker", body.market_ticker),
        connection=connection,
        sid=message.sid,
        seq=message.seq,
        sent_at=sent_at_of(message.sending_ts_ms),
        is_block=body.is_block_trade,
    )


def trade_row_from_rest(trade: RestTrade, received_at: int) -> TradeRow:
    """Build the row of a trade read from the REST tape.

    Raises:
        ValueDoesNotFit: names the field.
    """
    return TradeRow(
        exchange_ts=rfc3339_of("created_time", trade.created_time),
        received_at=received_at,
        size=amount_of("count_fp", trade.count_fp),
        yes_price=price_of("yes_price_dollars", trade.yes_price_dollars),
        no_price=price_of("no_price_dollars", trade.no_price_dollars),
        taker_side=taker_is_yes(trade.taker_outcome_side, trade.taker_side, trade.taker_book_side),
        trade_id=name_of("trade_id", trade.trade_id),
        ticker=name_of("ticker", trade.ticker),
        connection=None,
        sid=None,
        seq=None,
        sent_at=None,
        is_block=trade.is_block_trade,
    )


def ticker_row(message: wire.Ticker, received_at: int, connection: UUID, seq: int) -> TickerRow:
    """Build the row of a ticker; seq is our own running number on the sid, for the exchange sends none.

    Raises:
        ValueDoesNotFit: names the field.
    """
    body = message.msg
    price = price_of("price_dollars", body.price_dollars)
    yes_bid = price_of("yes_bid_dollars", body.yes_bid_dollars)
    yes_ask = price_of("yes_ask_dollars", body.yes_ask_dollars)
    yes_bid_size = amount_of("yes_bid_size_fp", body.yes_bid_size_fp)
    yes_ask_size = amount_of("yes_ask_size_fp", body.yes_ask_size_fp)
    last_trade_size = amount_of("last_trade_size_fp", body.last_trade_size_fp)
    volume = size_of("volume_fp", body.volume_fp)
    open_interest = size_of("open_interest_fp", body.open_interest_fp)
    dollar_volume = whole("dollar_volume", body.dollar_volume)
    dollar_open_interest = whole("dollar_open_interest", body.dollar_open_interest)
    hashed = (
        price, yes_bid, yes_ask, yes_bid_size, yes_ask_size, last_trade_size,
        volume, open_interest, dollar_volume, dollar_open_interest,
    )  # fmt: skip
    return TickerRow(
        exchange_ts=moment(body.ts_ms, "time", body.time),
        received_at=received_at,
        content_hash=content_hash(tables.TICKERS, hashed),
        volume=volume,
        open_interest=open_interest,
        dollar_volume=dollar_volume,
        dollar_open_interest=dollar_open_interest,
        yes_bid_size=yes_bid_size,
        yes_ask_size=yes_ask_size,
        last_trade_size=last_trade_size,
        seq=seq,
        price=price,
        yes_bid=yes_bid,
        yes_ask=yes_ask,
        sid=message.sid,
        connection=connection,
        ticker=name_of("market_ticker", body.market_ticker),
        sent_at=sent_at_of(message.sending_ts_ms),
    )
