"""Real recordings through simulator, connector and database: everything stored, every number exact."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.store.pool import Target
from services.simulator.settings import ReplaySettings
from tests.integration.connector.world import Zone, running_zone

RECORDED = Path(__file__).parents[3] / ".." / "shared" / "kalshi" / "recorded"
FILES = (
    "ws-demo-samples-2026-08-17a.jsonl",
    "ws-demo-samples-2026-08-17b.jsonl",
    "ws-prod-samples-2026-08-20.jsonl",
    "fortuna-demo-2026-06-11/ws__orderbook_trade_noleg.jsonl",
    "fortuna-demo-2026-06-11/ws__orderbook_trade_yes.jsonl",
)


def units(text: str, factor: int) -> int:
    """An exact integer, by another way than the code's own."""
    value = Decimal(text) * factor
    assert value == int(value)
    return int(value)


class Recording:
    """What a file holds, in stored units, no prices in their own leg."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        self.frames = [line.get("frame", line) for line in lines if "command" not in line]
        meta = path.with_suffix(".meta.json")
        command: dict[str, Any] = (
            json.loads(meta.read_text())["subscribe_cmd"] if meta.exists() else {}
        )
        params = command.get("params", {"use_yes_price": True})
        self.is_yes_scale = bool(params["use_yes_price"])

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame["msg"] for frame in self.frames if frame["type"] == kind]

    def price(self, text: str, is_no: bool) -> int:
        price = units(text, 100_000)
        return 100_000 - price if is_no and self.is_yes_scale else price

    def deltas(self) -> Counter[tuple[Any, ...]]:
        return Counter(
            (m["market_ticker"], m["side"] == "yes", self.price(m["price_dollars"], m["side"] == "no"),
             units(m["delta_fp"], 100))
            for m in self.of("orderbook_delta")
        )  # fmt: skip

    def books(self) -> Counter[tuple[Any, ...]]:
        found: Counter[tuple[Any, ...]] = Counter()
        for m in self.of("orderbook_snapshot"):
            sides = [
                tuple(sorted((self.price(p, is_no), units(s, 100)) for p, s in m.get(name, [])))
                for name, is_no in (("yes_dollars_fp", False), ("no_dollars_fp", True))
            ]
            found[m["market_ticker"], *sides] += 1
        return found

    def trades(self) -> set[tuple[Any, ...]]:
        return {
            (m["trade_id"], m["market_ticker"], units(m["count_fp"], 100), units(m["yes_price_dollars"], 100_000),
             units(m["no_price_dollars"], 100_000), m["taker_side"] == "yes", bool(m.get("is_block_trade")))
            for m in self.of("trade")
        }  # fmt: skip

    def tickers(self) -> Counter[tuple[Any, ...]]:
        return Counter(
            (m["market_ticker"], units(m["price_dollars"], 100_000), units(m["yes_bid_dollars"], 100_000),
             units(m["yes_ask_dollars"], 100_000), units(m["volume_fp"], 100), units(m["open_interest_fp"], 100))
            for m in self.of("ticker")
        )  # fmt: skip


async def stored(zone: Zone) -> tuple[Any, Any, Any, Any]:
    deltas = Counter(
        (r.ticker, r.side, r.price, r.size_delta) for r in await zone.rows("orderbook_deltas")
    )
    books = Counter(
        (r.ticker, tuple(map(tuple, r.yes)), tuple(map(tuple, r.no)))
        for r in await zone.rows("orderbook_snapshots")
    )
    trades = {
        (r.trade_id, r.ticker, r.size, r.yes_price, r.no_price, r.taker_side, bool(r.is_block))
        for r in await zone.rows("trades")
    }
    tickers = Counter(
        (r.ticker, r.price, r.yes_bid, r.yes_ask, r.volume, r.open_interest)
        for r in await zone.rows("tickers")
    )
    return deltas, books, trades, tickers


@pytest.mark.parametrize("name", FILES)
async def test_every_recorded_message_is_stored_exactly(
    gatherer_db: Target, tmp_path: Path, name: str
) -> None:
    """Every delta, trade, ticker and snapshot of the recording, with exact integer prices and sizes."""
    if not RECORDED.is_dir():
        pytest.skip("no recordings beside the repository")
    path = RECORDED / name
    recording = Recording(path)
    replay = ReplaySettings(file=str(path), use_yes_price=recording.is_yes_scale)
    async with running_zone(gatherer_db, tmp_path, replay=replay) as zone:
        async with zone.connector():

            async def is_there() -> bool:
                deltas, books, trades, tickers = await stored(zone)
                return bool(
                    deltas >= recording.deltas()
                    and books >= recording.books()
                    and trades >= recording.trades()
                    and tickers >= recording.tickers()
                )

            await zone.until(is_there)
        deltas, books, trades, tickers = await stored(zone)
    assert deltas == recording.deltas()
    assert books >= recording.books()
    assert trades == recording.trades()
    assert set(tickers) == set(recording.tickers())
