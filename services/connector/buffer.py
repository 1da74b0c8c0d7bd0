"""The bounded buffer between a family's batcher and its lane: the socket never waits, and a drop is written down.

Batches are sealed when they are put and stay in order. When the buffer is full the newest batch is dropped whole, its
rows become a gap, and the first batch accepted afterwards restates the streams that go on. A disk spool belongs behind
this same door (put, peek, commit); until then memory is all there is.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from libs.flow.batch import LISTEN_TABLES, Batch, SidKey, Source, restate
from libs.marketdata.rows import LOST_CHANNELS, GapRow, gap
from libs.marketdata.tables import GATHERER_TABLES, Family
from libs.store.batches import PREFIX_BYTES, SealedBatch, seal

GAPS_KEPT_MAX = 10_000
"""Gap rows kept over a drop of the family that carries them."""
CHANNEL_OF_TABLE = {
    "orderbook_deltas": "orderbook_delta",
    "trades": "trade",
    "tickers": "ticker",
    "orderbook_snapshots": "orderbook_delta",
    "snapshot_cuts": "orderbook_delta",
    "market_lifecycle": "market_lifecycle_v2",
}
"""The channel whose frames fill a table; in the order in which tables name a drop's channel."""


@dataclass(slots=True)
class Pending:
    """A sealed batch that waits. counts: rows by table. first_at: when its first row came."""

    batch: Batch
    sealed: SealedBatch
    counts: dict[str, int]
    first_at: int


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

    def row(self, now: int) -> GapRow:
        """The gap that names the cause."""
        return gap(
            now,
            self.channel,
            "spool_full",
            slot=self.slot,
            detail="the database is away and the buffer is full",
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
class Buffer:
    """Sealed batches of one family, at most rows_max rows.

    Attributes:
        rows: rows waiting. dropped: rows dropped, by table.
    """

    family: Family
    rows_max: int
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    _pending: deque[Pending] = field(default_factory=deque)
    _lost: dict[SidKey, Source] = field(default_factory=dict)
    _drops: dict[SidKey | None, Drop] = field(default_factory=dict)
    _gaps: list[GapRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, batch: Batch, now: int) -> list[GapRow]:
        """Take a batch, or drop it when the buffer is full.

        Call it right after the cut that made the batch.

        Returns:
            Gap rows to be written now: what was dropped before a batch that found room again.
        """
        if self.rows + batch.count > self.rows_max and self._pending:
            self._drop(batch, now)
            return []
        if self._lost:
            self._lost = restate([batch], self._lost, now)
        self._append(batch)
        return self.take_gaps(now)

    def take_gaps(self, now: int) -> list[GapRow]:
        """Return what was dropped and not said yet, as gap rows to be written now; put() does it by itself."""
        gaps = [drop.row(now) for drop in self._drops.values()] + self._gaps
        self._drops.clear()
        self._gaps = []
        return gaps

    def peek(self) -> Pending | None:
        """Return the oldest batch; the same one until it is committed."""
        return self._pending[0] if self._pending else None

    def commit(self) -> Pending:
        """Forget the oldest batch: it is in the database."""
        done = self._pending.popleft()
        self.rows -= done.sealed.rows
        return done

    def leave(self, sources: Iterable[Source], now: int) -> None:
        """Restate the streams that go on, because what was committed on the lane may be undone.

        Call it right after a cut and put, so that everything not committed stands in the buffer.

        Args:
            sources: every sid of the family that still receives.
        """
        lost: dict[SidKey, Source] = dict(self._lost)
        for pending in self._pending:
            lost |= pending.batch.sources
        lost |= {source.key: source for source in sources}
        self._lost = restate([pending.batch for pending in self._pending], lost, now)
        for pending in self._pending:
            if pending.batch.restated:
                self._seal_again(pending)

    def _append(self, batch: Batch) -> None:
        rows: dict[str, Sequence[tuple[object, ...]]] = dict(batch.rows)
        if opened := batch.opened_rows():
            rows["listen_opened"] = opened
        counts = {name: len(found) for name, found in rows.items()}
        sealed = seal(rows)
        # The facts are in the sealed payloads; only what restating needs is kept as rows.
        batch.rows = {}
        self._pending.append(Pending(batch, sealed, counts, batch.first_at))
        self.rows += sealed.rows

    def _seal_again(self, pending: Pending) -> None:
        """Replace the packed openings of a batch that was given more of them."""
        opened = seal({"listen_opened": pending.batch.opened_rows()})
        self.rows -= pending.sealed.rows
        pending.sealed = _with_table(pending.sealed, opened)
        pending.counts["listen_opened"] = opened.rows
        self.rows += pending.sealed.rows

    def _drop(self, batch: Batch, now: int) -> None:
        for name, rows in batch.rows.items():
            if name == "gaps":
                self._gaps += rows[: GAPS_KEPT_MAX - len(self._gaps)]  # type: ignore[arg-type]
            else:
                self.dropped[name] += len(rows)
        self._lost |= {key: s for key, s in batch.sources.items() if batch.notes[key].ranges}
        for key, notes in batch.notes.items():
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
            drop = self._drops[key] = Drop(key, channel, slot, batch.first_at, now)
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


def _with_table(sealed: SealedBatch, other: SealedBatch) -> SealedBatch:
    """Return the batch with the one table of `other` in place of its own, tables in their order."""
    tables = {t.name: t for t in sealed.tables}
    size = sealed.size_bytes + other.size_bytes
    rows = sealed.rows + other.rows
    old = tables.get(other.tables[0].name)
    if old is not None:
        rows -= len(old.payloads)
        size -= sum(map(len, old.payloads)) + len(old.payloads) * PREFIX_BYTES
    tables[other.tables[0].name] = other.tables[0]
    ordered = tuple(tables[name] for name in GATHERER_TABLES if name in tables)
    return SealedBatch(ordered, rows, size, sealed.sids_json)
