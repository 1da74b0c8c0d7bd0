"""What a buffer without room dropped: the rows of its gaps, and what the first batch behind them must know of it."""

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from libs.flow.batch import LISTEN_TABLES, Batch, SidKey, Source
from libs.marketdata.rows import LOST_CHANNELS, GapRow, gap
from libs.marketdata.tables import Family

GAPS_KEPT_MAX = 10_000
"""Gap rows kept over a drop of the family that carries them; more are dropped like other rows, and counted."""
CHANNEL_OF_TABLE = {
    "orderbook_deltas": "orderbook_delta",
    "trades": "trade",
    "tickers": "ticker",
    "orderbook_snapshots": "orderbook_delta",
    "snapshot_cuts": "orderbook_delta",
    "market_lifecycle": "market_lifecycle_v2",
}
"""The channel whose frames fill a table; in the order in which tables name a drop's channel."""

WHY = {
    "spool_full": "the database is away, and neither memory nor the spool has room",
    "storage_full": "the database has all the bytes it may take, and neither memory nor the spool has room",
}
"""The reasons of a drop, and what they mean."""


@dataclass(slots=True)
class Drop:
    """What was dropped of one sid; key None: rows that came by no sid."""

    key: SidKey | None
    channel: str
    slot: str
    received_from: int
    received_to: int
    from_ts: int | None = None
    to_ts: int | None = None
    seq_from: int | None = None
    seq_to: int | None = None
    rows: int = 0
    reason: str = "spool_full"

    def row(self, now: int) -> GapRow:
        """The gap that names the cause."""
        return gap(
            now,
            self.channel,
            self.reason,
            slot=self.slot,
            detail=WHY[self.reason],
            from_ts=self.from_ts,
            to_ts=self.to_ts,
            received_from=self.received_from,
            received_to=self.received_to,
            seq_from=self.seq_from,
            seq_to=self.seq_to,
            rows_lost=self.rows,
            connection=self.key[0] if self.key else None,
            sid=self.key[1] if self.key else None,
        )


@dataclass(slots=True)
class Drops:
    """The drops of one family since a batch last found room.

    Attributes:
        rows: rows dropped since the start, by table.
        reason: why there is no room now, one of WHY; a drop keeps the one it began with.
        lost: sids whose streams the next batch restates.
        ended: sids that are over. gone: number of the newest stream that ended in a drop, by sid and ticker.
    """

    family: Family
    rows: Counter[str] = field(default_factory=Counter)
    reason: str = "spool_full"
    lost: dict[SidKey, Source] = field(default_factory=dict)
    ended: list[SidKey] = field(default_factory=list)
    gone: dict[tuple[SidKey, str | None], int] = field(default_factory=dict)
    _drops: dict[SidKey | None, Drop] = field(default_factory=dict)
    _gaps: list[GapRow] = field(default_factory=list)

    @property
    def facts(self) -> int:
        """Rows dropped but those that say what was heard; what the gap rows count."""
        return sum(rows for name, rows in self.rows.items() if name not in LISTEN_TABLES)

    @property
    def is_open(self) -> bool:
        """True while something was dropped and no batch found room since."""
        return bool(self._drops or self._gaps)

    def take_gaps(self, now: int) -> list[GapRow]:
        """Return what was dropped and not said yet, as gap rows to be written now."""
        gaps = [drop.row(now) for drop in self._drops.values()] + self._gaps
        self._drops.clear()
        self._gaps = []
        return gaps

    def add(self, batch: Batch, now: int) -> None:
        """Write off a batch."""
        self.ended += ended_in(batch)
        for name, rows in batch.rows.items():
            if name == "gaps":
                room = GAPS_KEPT_MAX - len(self._gaps)
                self._gaps += rows[:room]  # type: ignore[arg-type]
                if len(rows) > room:
                    self.rows[name] += len(rows) - room
            else:
                self.rows[name] += len(rows)
        self.lost |= {key: s for key, s in batch.sources.items() if batch.notes[key].ranges}
        for key, notes in batch.notes.items():
            for closing, _ in notes.closed:
                last = self.gone.get((key, closing.ticker), 0)
                self.gone[key, closing.ticker] = max(last, closing.stream)
            for run in notes.ranges:
                drop = self._dropped(key, run.channel, batch, now)
                drop.from_ts = run.sent_from if drop.from_ts is None else drop.from_ts
                drop.seq_from = run.seq_from if drop.seq_from is None else drop.seq_from
                drop.to_ts, drop.seq_to = run.sent_to, run.seq_to
        unnamed = LOST_CHANNELS[self.family][0]
        for name in _in_order(batch.rows.keys() - {"gaps", *LISTEN_TABLES}):
            by_key = Counter(_key_of(row) for row in batch.rows[name])
            channel = CHANNEL_OF_TABLE.get(name, unnamed)
            for found, count in by_key.items():
                self._dropped(found, channel, batch, now).rows += count

    def _dropped(self, key: SidKey | None, channel: str, batch: Batch, now: int) -> Drop:
        drop = self._drops.get(key)
        if drop is None:
            source = batch.sources.get(key) if key else None
            slot = source.slot if source else ""
            drop = self._drops[key] = Drop(
                key, channel, slot, batch.first_at, now, reason=self.reason
            )
        drop.received_to = now
        return drop


def _in_order(names: AbstractSet[str]) -> list[str]:
    """Tables that name a channel first, so that a sid's drop bears its own channel."""
    return [name for name in CHANNEL_OF_TABLE if name in names] + sorted(
        names - CHANNEL_OF_TABLE.keys()
    )


def _key_of(row: Any) -> SidKey | None:
    """The sid a row came by; None for rows of no sid."""
    connection, sid = getattr(row, "connection", None), getattr(row, "sid", None)
    return None if connection is None or sid is None else (connection, sid)


def ended_in(batch: Batch) -> list[SidKey]:
    """The sids that this batch is the last of."""
    return [key for key, source in batch.sources.items() if source.ended]
