"""What the simulated exchange says it published and sent: its two journals, read into facts.

The market journal is the oracle of the verdict; the session journal says who was subscribed to what and when, which is
the cause of every gap, and which book each snapshot was sent with.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from libs.marketdata.listening import Span
from libs.marketdata.rebuild import BookDelta, Levels, apply, levels_of
from services.local.verdict import Fact

TICKER_FIELDS = (
    "price", "yes_bid", "yes_ask", "yes_bid_size", "yes_ask_size", "last_trade_size", "volume", "open_interest",
    "dollar_volume", "dollar_open_interest",
)  # fmt: skip


ALWAYS: Span = (-(1 << 62), 1 << 62)
"""A span that nothing lies outside of."""
FLEETING = frozenset({"trade", "ticker"})
"""Kinds whose past nothing is rebuilt from."""


@dataclass(slots=True)
class Market:
    """One market's life: when it was listed, its book then, when it closed, and its deltas in their order."""

    created_at: int
    start: Levels
    closed_at: int | None = None
    deltas: list[BookDelta] = field(default_factory=list)
    is_new: bool = False
    """Whether it was listed while the exchange ran."""

    def book(self) -> Levels:
        """Return the last book."""
        return apply(self.start, self.deltas)


@dataclass(slots=True)
class Truth:
    """Everything the market journal says."""

    markets: dict[str, Market] = field(default_factory=dict)
    trades: list[Fact] = field(default_factory=list)
    tickers: set[Fact] = field(default_factory=set)
    lifecycle: list[Fact] = field(default_factory=list)

    def only(self, wants: Callable[[str], bool]) -> "Truth":
        """Return what a capture of some markets can hold: lifecycle messages are recorded of all of them."""
        return Truth(
            {ticker: market for ticker, market in self.markets.items() if wants(ticker)},
            [fact for fact in self.trades if wants(fact.ticker)],
            {fact for fact in self.tickers if wants(fact.ticker)},
            self.lifecycle,
        )

    def deltas(self, span: Span | None = None) -> Iterator[Fact]:
        """Return those of a span, or all."""
        low, high = span or ALWAYS
        for ticker, market in self.markets.items():
            for d in market.deltas:
                if low <= d.exchange_ts < high:
                    identity = (d.exchange_ts, d.side, d.price, d.size_delta)
                    yield Fact(ticker, d.exchange_ts, identity)

    def lives(self) -> dict[str, tuple[int | None, int | None]]:
        """Return when each market was listed (None: it was there from the beginning) and when it closed."""
        return {
            ticker: (market.created_at if market.is_new else None, market.closed_at)
            for ticker, market in self.markets.items()
        }


def canonical(body: object) -> str:
    """Return JSON whose text is equal when the values are."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def read_market_journal(lines: Iterable[bytes], span: Span | None = None) -> Truth:
    """Read the market journal; lines of kinds that are no facts are passed over.

    Args:
        span: only trades and tickers of [from, to), and nothing of markets from `to` on; lifecycle messages are all read.
    """
    truth = Truth()
    low, high = span or ALWAYS
    for line in lines:
        entry = msgspec.json.decode(line)
        kind = entry["kind"]
        reader = _READERS.get(kind)
        if reader is None:
            continue
        moment = entry["exchange_ts"] if "exchange_ts" in entry else entry["at"]
        if kind != "lifecycle" and (moment >= high or (kind in FLEETING and moment < low)):
            continue
        reader(truth, entry)
    return truth


def _created(truth: Truth, entry: Mapping[str, Any]) -> None:
    levels = levels_of(map(tuple, entry["yes"]), map(tuple, entry["no"]))
    truth.markets[entry["ticker"]] = Market(
        entry["at"], levels, is_new=entry.get("initial") is False
    )


def _closed(truth: Truth, entry: Mapping[str, Any]) -> None:
    truth.markets[entry["ticker"]].closed_at = entry["at"]


def _delta(truth: Truth, entry: Mapping[str, Any]) -> None:
    truth.markets[entry["ticker"]].deltas.append(
        BookDelta(entry["exchange_ts"], None, entry["side"], entry["price"], entry["size_delta"])
    )


def _trade(truth: Truth, entry: Mapping[str, Any]) -> None:
    moment = entry["exchange_ts"]
    names = ("trade_id", "size", "yes_price", "no_price", "taker_side")
    identity = (moment, *(entry[name] for name in names))
    truth.trades.append(Fact(entry["ticker"], moment, identity))


def _ticker(truth: Truth, entry: Mapping[str, Any]) -> None:
    moment = entry["exchange_ts"]
    identity = (moment, *(entry[name] for name in TICKER_FIELDS))
    truth.tickers.add(Fact(entry["ticker"], moment, identity))


def _lifecycle(truth: Truth, entry: Mapping[str, Any]) -> None:
    identity = (entry["message_type"], entry["event_type"], canonical(entry["body"]))
    truth.lifecycle.append(Fact(entry["ticker"], entry["at"], identity))


_READERS = {
    "created": _created, "closed": _closed, "delta": _delta, "trade": _trade, "ticker": _ticker,
    "lifecycle": _lifecycle,
}  # fmt: skip
