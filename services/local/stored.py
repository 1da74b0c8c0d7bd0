"""What a database holds, read into the verdict's terms: facts, claims, books, counts."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from libs.marketdata.listening import Span
from libs.marketdata.rebuild import BookDelta, BookSnapshot, Levels, rebuild
from libs.store.pool import Connection, map_store_errors
from services.local.truth import ALWAYS, TICKER_FIELDS, canonical
from services.local.verdict import ClaimIndex, Fact

_DELTAS: LiteralString = (
    "SELECT ticker, exchange_ts, side, price, size_delta, pos FROM orderbook_deltas"
    " WHERE exchange_ts >= $1 AND exchange_ts < $2"
)
_TRADES: LiteralString = (
    "SELECT ticker, exchange_ts, trade_id, size, yes_price, no_price, taker_side FROM trades"
    " WHERE exchange_ts >= $1 AND exchange_ts < $2"
)
_TICKERS: LiteralString = (
    "SELECT ticker, exchange_ts, price, yes_bid, yes_ask, yes_bid_size, yes_ask_size, last_trade_size, volume,"
    " open_interest, dollar_volume, dollar_open_interest FROM tickers WHERE exchange_ts >= $1 AND exchange_ts < $2"
)
_LIFECYCLE: LiteralString = "SELECT ticker, observed_at, message_type, event_type, body FROM market_lifecycle_facts WHERE observed_at >= $1"
_SNAPSHOTS: LiteralString = (
    "SELECT s.gatherer, s.source, s.ticker, s.connection, s.sid, s.seq, s.sent_at, s.observed_at, s.requested_at,"
    " s.received_at, s.cut_exchange_ts, s.cut_pos, s.yes, s.no, c.exchange_ts AS tail_ts, c.deltas AS tail_deltas"
    " FROM orderbook_snapshots s LEFT JOIN snapshot_cuts c ON c.gatherer = s.gatherer AND c.connection = s.connection"
    " AND c.sid = s.sid AND c.seq = s.seq AND c.ticker = s.ticker"
    " WHERE s.observed_at >= $1 AND s.observed_at < $2 ORDER BY s.observed_at"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One stored snapshot: where it was seen, and the book as the rebuild takes it (None: a row without ladders)."""

    source: str
    ticker: str
    sid: int | None
    seq: int | None
    sent_at: int | None
    requested_at: int | None
    received_at: int
    book: BookSnapshot | None


@dataclass(slots=True)
class Stored:
    """Everything of production that the verdict compares."""

    deltas: dict[str, list[BookDelta]] = field(default_factory=dict)
    trades: list[Fact] = field(default_factory=list)
    tickers: list[Fact] = field(default_factory=list)
    lifecycle: list[Fact] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def delta_facts(self, span: Span | None = None) -> list[Fact]:
        """Return those of a span, or all."""
        low, high = span or ALWAYS
        return [
            Fact(ticker, d.exchange_ts, (d.exchange_ts, d.side, d.price, d.size_delta))
            for ticker, deltas in self.deltas.items()
            for d in deltas
            if low <= d.exchange_ts < high
        ]

    def taken(self) -> dict[str, list[BookSnapshot]]:
        """Return every market's snapshots of the socket, in their order."""
        found: dict[str, list[BookSnapshot]] = defaultdict(list)
        for snapshot in self.snapshots:
            if snapshot.source == "ws" and snapshot.book is not None:
                found[snapshot.ticker].append(snapshot.book)
        return found

    def book(self, ticker: str, taken: Sequence[BookSnapshot]) -> Levels | None:
        """Rebuild a market's last book from its latest usable snapshot."""
        return rebuild(taken, self.deltas.get(ticker, []))


async def read_stored(
    conn: Connection,
    added: frozenset[str] = frozenset(),
    span: Span | None = None,
    epoch: int | None = None,
) -> Stored:
    """Read production; a laptop's run fits in memory.

    Args:
        added: fields that the exchange put into messages on purpose; recorded bodies have them, the truth has not.
        span: only trades and tickers of [from, to), deltas and snapshots before `to`; lifecycle messages are all read.
        epoch: nothing from before it; None: everything.

    Raises:
        StoreError: as map_store_errors says.
    """
    stored = Stored()
    low, high = span or ALWAYS
    first = ALWAYS[0] if epoch is None else epoch
    with map_store_errors():
        for row in await conn.fetch(_DELTAS, first, high):
            delta = BookDelta(
                row["exchange_ts"], row["pos"], row["side"], row["price"], row["size_delta"]
            )
            stored.deltas.setdefault(row["ticker"], []).append(delta)
        for row in await conn.fetch(_TRADES, low, high):
            names = ("exchange_ts", "trade_id", "size", "yes_price", "no_price", "taker_side")
            stored.trades.append(_fact(row, names))
        for row in await conn.fetch(_TICKERS, low, high):
            stored.tickers.append(_fact(row, ("exchange_ts", *TICKER_FIELDS)))
        for row in await conn.fetch(_LIFECYCLE, first):
            said = {k: v for k, v in json.loads(row["body"]).items() if k not in added}
            identity = (row["message_type"], row["event_type"], canonical(said))
            stored.lifecycle.append(Fact(row["ticker"], row["observed_at"], identity))
        stored.snapshots = [
            _snapshot(row, high) for row in await conn.fetch(_SNAPSHOTS, first, high)
        ]
    return stored


def _fact(row: Any, names: Sequence[str]) -> Fact:
    return Fact(row["ticker"], row["exchange_ts"], tuple(row[name] for name in names))


def _snapshot(row: Any, end: int) -> Snapshot:
    """Read one; of what followed it nothing from `end` on is counted."""
    book = None
    if row["yes"] is not None:
        cut = (row["cut_exchange_ts"], row["cut_pos"])
        is_before = row["tail_ts"] is not None and row["tail_ts"] < end
        tail = (row["tail_ts"], row["tail_deltas"] if is_before else 0)
        book = BookSnapshot(
            row["observed_at"],
            tuple((price, size) for price, size in row["yes"]),
            tuple((price, size) for price, size in row["no"]),
            None if None in cut else cut,
            None if row["tail_ts"] is None else tail,
        )
    return Snapshot(
        row["source"], row["ticker"], row["sid"], row["seq"], row["sent_at"], row["requested_at"],
        row["received_at"], book,
    )  # fmt: skip


async def read_claims(conn: Connection) -> dict[str, dict[str, ClaimIndex]]:
    """Return claims by zone ("" = all zones together) and channel, from production's view `listening`."""
    with map_store_errors():
        rows = await conn.fetch(
            "SELECT g.zone, l.channel, l.ticker, l.from_ts, l.to_ts FROM listening l"
            " JOIN gatherers g ON g.gatherer = l.gatherer"
        )
    found: dict[tuple[str, str], list[tuple[str | None, int, int]]] = defaultdict(list)
    for row in rows:
        for zone in (row["zone"], ""):
            found[zone, row["channel"]].append((row["ticker"], row["from_ts"], row["to_ts"]))
    claims: dict[str, dict[str, ClaimIndex]] = defaultdict(dict)
    for (zone, channel), spans in found.items():
        claims[zone][channel] = ClaimIndex(spans)
    return claims


async def count_rows(conn: Connection, tables: Sequence[str]) -> dict[str, int]:
    """Return the rows of each table."""
    with map_store_errors():
        return {name: await conn.fetchval(f"SELECT count(*) FROM {name}") for name in tables}
