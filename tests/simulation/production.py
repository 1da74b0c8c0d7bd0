"""What production holds: of one gatherer alone the set union of data-model.md section 3, of all what a deduplicator merged.

Rows are read back from the bytes that were committed. Nothing is merged that was not; nothing is numbered anew. In a
world without a deduplicator the union of all is the model's too.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol
from uuid import UUID

from libs.marketdata.listening import Claim, claims
from libs.marketdata.rebuild import BookDelta, BookSnapshot, Levels, rebuild
from libs.marketdata.rows import DeltaRow, GapRow, LifecycleRow, SnapshotRow, TickerRow, TradeRow
from libs.marketdata.tables import ORDERBOOK_DELTAS, TICKERS
from libs.marketdata.units import SECOND
from services.local.truth import TICKER_FIELDS, canonical
from services.local.verdict import ClaimIndex, Fact
from services.simulator.faults.menu import NewField

SAME_FACT = 10 * SECOND
"""Equal lifecycle observations of different streams less than this apart are one fact, microseconds."""


class Database(Protocol):
    """A gatherer's database as far as the union needs it."""

    def rows(self, table: str) -> list[Any]:
        """Return every committed row of a table."""


@dataclass(slots=True)
class Production:
    """The union, in the verdict's terms.

    claims: by zone ("" = all) and channel. margins: the largest end margin by zone and channel, microseconds.
    cuts: of snapshots, by connection, sid, seq and ticker: the later millisecond and how many of its deltas followed.
    """

    deltas: list[DeltaRow] = field(default_factory=list)
    trades: list[Fact] = field(default_factory=list)
    tickers: list[Fact] = field(default_factory=list)
    lifecycle: list[Fact] = field(default_factory=list)
    snapshots: list[SnapshotRow] = field(default_factory=list)
    gaps: dict[str, list[GapRow]] = field(default_factory=dict)
    claims: dict[str, dict[str, ClaimIndex]] = field(default_factory=dict)
    margins: dict[tuple[str, str], int] = field(default_factory=dict)
    cuts: dict[tuple[Any, ...], tuple[int, int]] = field(default_factory=dict)

    def delta_facts(self) -> list[Fact]:
        return [
            Fact(d.ticker, d.exchange_ts, (d.exchange_ts, d.side, d.price, d.size_delta))
            for d in self.deltas
        ]

    def book(self, ticker: str) -> Levels | None:
        """Rebuild a market's last book from its latest usable snapshot.

        Raises:
            BookImpossible: a delta is missing or was counted twice.
        """
        deltas = [
            BookDelta(d.exchange_ts, d.pos, d.side, d.price, d.size_delta)
            for d in self.deltas
            if d.ticker == ticker
        ]
        return rebuild([self._book(r) for r in self.snapshots if r.ticker == ticker], deltas)

    def _book(self, row: SnapshotRow) -> BookSnapshot:
        cut = (row.cut_exchange_ts, row.cut_pos)
        whole = None if cut[0] is None or cut[1] is None else (cut[0], cut[1])
        tail = self.cuts.get((row.connection, row.sid, row.seq, row.ticker))
        return BookSnapshot(row.observed_at, row.yes or (), row.no or (), whole, tail)

    def index(self, zone: str, channel: str) -> ClaimIndex:
        """Claims of one channel; none when nobody claimed any."""
        return self.claims.get(zone, {}).get(channel, ClaimIndex([]))


def merge(databases: Mapping[str, Database], whole: Database | None = None) -> Production:
    """Merge what the gatherers committed, by zone.

    Args:
        whole: what a deduplicator merged of all of them, if one did.
    """
    found = Production()
    _merge_facts(found, databases.values() if whole is None else [whole])
    everything: list[Claim] = []
    for zone, database in databases.items():
        ranges = list(database.rows("listen_ranges"))
        told = claims(ranges, database.rows("listen_opened"), database.rows("listen_closed"))
        for row in ranges:
            key = (zone, row.channel)
            found.margins[key] = max(row.margin, found.margins.get(key, 0))
        found.gaps[zone] = list(database.rows("gaps"))
        found.claims[zone] = _by_channel(told)
        everything += told
    if whole is not None:
        listening = (
            whole.rows(name) for name in ("listen_ranges", "listen_opened", "listen_closed")
        )
        everything = claims(*listening)
    for database in databases.values() if whole is None else [whole]:
        for cut in database.rows("snapshot_cuts"):
            place = (cut.connection, cut.sid, cut.seq, cut.ticker)
            found.cuts[place] = (cut.exchange_ts, cut.deltas)
    found.claims[""] = _by_channel(everything)
    return found


def _by_channel(told: Iterable[Claim]) -> dict[str, ClaimIndex]:
    spans: dict[str, list[tuple[str | None, int, int]]] = defaultdict(list)
    for claim in told:
        spans[claim.channel].append((claim.ticker, claim.from_ts, claim.to_ts))
    return {channel: ClaimIndex(found) for channel, found in spans.items()}


def _merge_facts(found: Production, databases: Iterable[Database]) -> None:
    delta_key, ticker_key = attrgetter(*ORDERBOOK_DELTAS.identity), attrgetter(*TICKERS.identity)
    deltas: dict[tuple[Any, ...], DeltaRow] = {}
    trades: dict[str, TradeRow] = {}
    tickers: dict[tuple[Any, ...], TickerRow] = {}
    snapshots: dict[tuple[Any, ...], SnapshotRow] = {}
    seen: list[LifecycleRow] = []
    for database in databases:
        for delta in database.rows("orderbook_deltas"):
            deltas.setdefault(delta_key(delta), delta)
        for trade in database.rows("trades"):
            trades.setdefault(trade.trade_id, trade)
        for ticker in database.rows("tickers"):
            tickers.setdefault(ticker_key(ticker), ticker)
        for row in database.rows("orderbook_snapshots"):
            snapshots.setdefault((row.ticker, row.connection, row.sid, row.seq), row)
        seen += database.rows("market_lifecycle")
    found.deltas = list(deltas.values())
    names = ("exchange_ts", "trade_id", "size", "yes_price", "no_price", "taker_side")
    found.trades = [_fact(row, names) for row in trades.values()]
    found.tickers = [_fact(row, ("exchange_ts", *TICKER_FIELDS)) for row in tickers.values()]
    found.lifecycle = [
        Fact(
            row.ticker,
            row.observed_at,
            (row.message_type, row.event_type, _as_published(row)),
        )
        for row in lifecycle_facts(seen)
    ]
    found.snapshots = list(snapshots.values())


def _fact(row: object, names: tuple[str, ...]) -> Fact:
    values = attrgetter(*names)(row)
    return Fact(attrgetter("ticker")(row), values[0], values)


def _as_published(row: LifecycleRow) -> str:
    """The message without the field that a fault put into it on the way to one connection."""
    body = json.loads(row.body)
    body.pop(NewField().field, None)
    return canonical(body)


def lifecycle_facts(rows: Iterable[LifecycleRow]) -> list[LifecycleRow]:
    """Return the first observation of each fact, by the rule of production's view market_lifecycle_facts.

    An observation joins the nearest earlier fact of equal content that is less than 10 s older and that its stream has
    not seen yet; else it is a fact of its own.
    """
    distinct = {(r.connection, r.sid, r.seq, r.ticker, r.event_type): r for r in rows}.values()
    groups: dict[tuple[str, str, str], list[tuple[LifecycleRow, set[tuple[UUID, int]]]]] = {}
    for row in sorted(distinct, key=lambda r: (r.observed_at, r.connection, r.sid, r.seq)):
        facts = groups.setdefault((_as_published(row), row.ticker, row.event_type), [])
        stream = (row.connection, row.sid)
        near = (f for f in reversed(facts) if f[0].observed_at > row.observed_at - SAME_FACT)
        joined = next((streams for _, streams in near if stream not in streams), None)
        if joined is None:
            facts.append((row, {stream}))
        else:
            joined.add(stream)
    return [row for facts in groups.values() for row, _ in facts]
