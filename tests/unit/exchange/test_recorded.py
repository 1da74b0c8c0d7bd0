"""Everything third parties recorded from the real exchange decodes and converts exactly."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from libs.exchange import convert, rest_wire, wire
from libs.exchange.errors import ExchangeError
from libs.exchange.rest_errors import parse_error_body, raise_for_answer
from libs.marketdata.units import PRICE_ONE

RECORDED = Path(__file__).parents[3] / ".." / "shared" / "kalshi" / "recorded"
DEMO = RECORDED / "fortuna-demo-2026-06-11"
CONNECTION = UUID(int=1)

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason="the recordings are not here")


def frames() -> Iterator[tuple[bytes, dict[str, Any], bool]]:
    """Yield (bytes, parsed, use_yes_price) of every recorded socket frame."""
    for path in sorted(RECORDED.rglob("ws*.jsonl")):
        yes = "noleg" not in path.name
        for line in path.read_text().splitlines():
            record: dict[str, Any] = json.loads(line) if line.strip() else {"command": None}
            if "command" in record:
                continue
            frame: dict[str, Any] = record.get("frame") or record
            yield json.dumps(frame).encode(), frame, yes


def cents(text: str, factor: int) -> int:
    value = Decimal(text) * factor
    assert value == int(value)
    return int(value)


def sides(levels: list[list[str]] | None, flip: bool) -> list[tuple[int, int]]:
    found = [(cents(price, PRICE_ONE), cents(size, 100)) for price, size in levels or []]
    return sorted((PRICE_ONE - price if flip else price, size) for price, size in found)


def test_every_frame_decodes_and_converts_exactly() -> None:
    """Prices and sizes of every recorded frame equal what Decimal makes of their text; nothing is rejected."""
    counts: dict[str, int] = {}
    for data, raw, yes_price in frames():
        message = wire.decode_message(data)
        kind, msg = raw["type"], raw.get("msg", {})
        counts[kind] = counts.get(kind, 0) + 1
        envelope = wire.decode_envelope(data)
        assert envelope is not None
        assert (envelope.type, envelope.sid, envelope.seq) == (kind, raw.get("sid"), raw.get("seq"))
        assert wire.ticker_of(data) == msg.get("market_ticker")
        if isinstance(message, wire.OrderbookDelta):
            price = cents(msg["price_dollars"], PRICE_ONE)
            side = msg["side"] == "yes"
            own = PRICE_ONE - price if yes_price and not side else price
            assert convert.delta_values(message, yes_price) == (
                msg["market_ticker"], msg["ts_ms"] * 1000, side, own, cents(msg["delta_fp"], 100),
            )  # fmt: skip
            message.msg.ts_ms = None
            assert convert.delta_values(message, yes_price)[1] == msg["ts_ms"] * 1000
        elif isinstance(message, wire.OrderbookSnapshot):
            yes, no = convert.ladders(message, yes_price)
            assert list(yes) == sides(msg.get("yes_dollars_fp"), flip=False)
            assert list(no) == sides(msg.get("no_dollars_fp"), flip=yes_price)
            assert not convert.is_crossed(yes, no)
        elif isinstance(message, wire.Trade):
            row = convert.trade_row(message, 1, CONNECTION)
            assert (row.exchange_ts, row.size) == (msg["ts_ms"] * 1000, cents(msg["count_fp"], 100))
            assert row.yes_price == cents(msg["yes_price_dollars"], PRICE_ONE)
            assert row.yes_price + row.no_price == PRICE_ONE
        elif isinstance(message, wire.Ticker):
            ticker = convert.ticker_row(message, 1, CONNECTION, 1)
            assert ticker.price == cents(msg["price_dollars"], PRICE_ONE)
            assert ticker.volume == cents(msg["volume_fp"], 100)
            assert ticker.dollar_volume == msg["dollar_volume"]
            message.msg.ts_ms = None
            again = convert.ticker_row(message, 1, CONNECTION, 1)
            assert again == ticker
    assert counts["orderbook_delta"] >= 20
    assert counts["orderbook_snapshot"] >= 13
    assert min(counts[kind] for kind in ("trade", "ticker", "subscribed", "error")) >= 1


def test_a_wrong_orientation_shows_as_a_crossed_book() -> None:
    """Most production books read with the wrong orientation are crossed: the check of the first snapshot works."""
    crossed = 0
    for data, _, yes_price in frames():
        message = wire.decode_message(data)
        if isinstance(message, wire.OrderbookSnapshot) and yes_price:
            crossed += convert.is_crossed(*convert.ladders(message, use_yes_price=False))
    assert crossed >= 5


def test_every_rest_body_reads() -> None:
    """Recorded answers of every endpoint decode; error bodies give their status' class."""
    for meta_path in sorted(DEMO.glob("*.meta.json")):
        meta = json.loads(meta_path.read_text())
        body_path = meta_path.with_name(meta_path.name.replace(".meta.json", ".json"))
        if not body_path.exists() or "status" not in meta:
            continue
        body = body_path.read_bytes()
        raw = rest_wire.RawAnswer(body, 1, 2)
        if meta["status"] >= 400:
            assert any(parse_error_body(body))
            with pytest.raises(ExchangeError):
                raise_for_answer(meta["status"], body, {})
        elif meta["path"].partition("?")[0].endswith("/markets"):
            items, cursor = rest_wire.decode_listing(raw, "markets")
            page = rest_wire.decode_page(items, rest_wire.Json, raw)
            assert page.items
            assert not page.rejected
            assert cursor == json.loads(body)["cursor"]
        elif meta["path"].endswith("/orderbook"):
            book = rest_wire.decode_answer(raw, rest_wire.RestBook).value
            assert convert.rest_ladders(book) == (((47000, 300),), ((48000, 300),))
        elif meta["path"].endswith("/account/limits"):
            limits = rest_wire.decode_answer(raw, rest_wire.AccountLimits).value
            assert (limits.read.refill_rate, limits.read.bucket_capacity) == (200, 200)
            assert limits.usage_tier == "basic"
        elif meta["path"].endswith("/exchange/status"):
            status = rest_wire.decode_answer(raw, rest_wire.ExchangeStatus).value
            assert (status.exchange_active, status.trading_active) == (True, True)


def test_the_recorded_tape_converts_exactly() -> None:
    """Every trade of the recorded REST tape becomes a row with exact values and a floored time."""
    body = (DEMO / "trades__public_recorded.json").read_bytes()
    raw = rest_wire.RawAnswer(body, 1, 2)
    items, _ = rest_wire.decode_listing(raw, "trades")
    page = rest_wire.decode_page(items, rest_wire.RestTrade, raw)
    assert not page.rejected
    for item, trade in zip(json.loads(body)["trades"], page.items, strict=True):
        row = convert.trade_row_from_rest(trade, 9)
        assert (row.trade_id, row.ticker) == (item["trade_id"], item["ticker"])
        assert row.size == cents(item["count_fp"], 100)
        assert row.yes_price == cents(item["yes_price_dollars"], PRICE_ONE)
        assert row.exchange_ts % 1000 == 0
        assert row.taker_side is (item["taker_outcome_side"] == "yes")


def test_the_recorded_production_samples() -> None:
    """The production trade and the depth-3 book of third parties' notes read as they are written."""
    samples = json.loads((RECORDED / "rest-prod-samples-2026-08-24.json").read_text())
    trade = msgspec.convert(samples["trade"], rest_wire.RestTrade)
    row = convert.trade_row_from_rest(trade, 9)
    assert (row.size, row.yes_price, row.no_price) == (4300, 8000, 92000)
    book = json.loads((RECORDED / "rest-prod-orderbook-depth3-2026-07-18.json").read_text())
    yes, no = convert.rest_ladders(msgspec.convert(book, rest_wire.RestBook))
    assert yes == ((11000, 9722), (12000, 47), (27000, 3154))
    assert no == ((70000, 1100), (71000, 2500), (72000, 2000))
