"""The bounded buffer between a family's batcher and its lane: the socket never waits, and a drop is written down.

One queue in the order of the cuts. Its front may lie on the disk, its tail is in memory; batches are sealed when they are
put, numbered for good, and only ever move from the tail of memory to the tail of the disk, and from the front to the
lane. Memory above its high mark, or a batch that waits too long, begins the spooling; from then on everything goes to
the disk, until what lies there is below the low mark again. When disk and memory are full the newest batch is dropped
whole, its rows become a gap, and the first batch accepted afterwards restates the streams that go on. Pure: who moves
the batches is told here what to move.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from libs.flow.batch import LISTEN_TABLES, Batch, SidKey, Source, restate
from libs.marketdata.rows import LOST_CHANNELS, GapRow, gap
from libs.marketdata.tables import GATHERER_TABLES, Family
from libs.store.batches import PREFIX_BYTES, SealedBatch, seal
from libs.store.spool_format import Gone, Record
from services.connector.openings import Openings, rows_of

GAPS_KEPT_MAX = 10_000
"""Gap rows kept over a drop of the family that carries them."""
BYTES_MAX = 256 << 20
CHANNEL_OF_TABLE = {
    "orderbook_deltas": "orderbook_delta",
    "trades": "trade",
    "tickers": "ticker",
    "orderbook_snapshots": "orderbook_delta",
    "snapshot_cuts": "orderbook_delta",
    "market_lifecycle": "market_lifecycle_v2",
}
"""The channel whose frames fill a table; in the order in which tables name a drop's channel."""


@dataclass(frozen=True, slots=True)
class Marks:
    """When batches go to the disk. rows and bytes of memory; age in microseconds; rows_low of what lies on the disk."""

    rows_high: int
    rows_low: int
    bytes_high: int
    age: int


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
    """The batches of one family that are not committed; at most rows_max rows and bytes_max bytes of them in memory.

    Attributes:
        rows, size_bytes: what waits in memory. disk_rows: what waits on the disk, roughly after losses there.
        dropped: rows dropped, by table.
        taken: number of the last batch accepted. done: of the last one committed. spooled_to: of the last on the disk.
        is_spooling: everything goes to the disk.
        openings: the streams that go on at the front.
    """

    family: Family
    rows_max: int
    bytes_max: int = BYTES_MAX
    marks: Marks | None = None
    rows: int = 0
    size_bytes: int = 0
    disk_rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    done: int = 0
    spooled_to: int = 0
    is_spooling: bool = False
    openings: Openings = field(default_factory=Openings)
    _tail: deque[Record] = field(default_factory=deque)
    _front: deque[Record] = field(default_factory=deque)
    _head: Record | None = None
    _offered: Record | None = None
    _live: dict[SidKey, Source] = field(default_factory=dict)
    _now: int = 0
    _lost: dict[SidKey, Source] = field(default_factory=dict)
    _gone: dict[tuple[SidKey, str | None], int] = field(default_factory=dict)
    _ended: list[SidKey] = field(default_factory=list)
    _drops: dict[SidKey | None, Drop] = field(default_factory=dict)
    _gaps: list[GapRow] = field(default_factory=list)

    def __len__(self) -> int:
        return self.taken - self.done

    @property
    def dropped_facts(self) -> int:
        """Rows dropped but those that say what was heard; what the gap rows count."""
        return sum(rows for name, rows in self.dropped.items() if name not in LISTEN_TABLES)

    # --- the tail ---

    def put(self, batch: Batch, now: int) -> list[GapRow]:
        """Take a batch, or drop it when there is no room.

        Call it right after the cut that made the batch.

        Returns:
            Gap rows to be written now: what was dropped before a batch that found room again.
        """
        is_full = self.rows + batch.count > self.rows_max or self.size_bytes >= self.bytes_max
        if is_full and self._tail:
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

    def _append(self, batch: Batch) -> None:
        rows: dict[str, Sequence[tuple[object, ...]]] = dict(batch.rows)
        if opened := batch.opened_rows():
            rows["listen_opened"] = opened
        self.taken += 1
        record = Record(
            self.taken,
            batch.first_at,
            seal(rows),
            (*self._ended, *_ended(batch)),
            tuple(Gone(*key, ticker, stream) for (key, ticker), stream in self._gone.items()),
        )
        self._ended, self._gone = [], {}
        self._tail.append(record)
        self._count(record, 1)

    def _count(self, record: Record, sign: int) -> None:
        self.rows += sign * record.sealed.rows
        self.size_bytes += sign * record.sealed.size_bytes

    # --- the front ---

    @property
    def on_disk(self) -> bool:
        """True when the oldest batches are on the disk."""
        return self.done < self.spooled_to

    @property
    def oldest_at(self) -> int | None:
        """When the first row of what waits came, microseconds; None when nothing waits, or nobody read it yet."""
        first = self._head or next(iter(self._front or self._tail), None)
        return first.first_at if first is not None and first.number == self.done + 1 else None

    def peek(self) -> Record | None:
        """Return the oldest batch; the same one until it is committed, or left.

        None also when it is on the disk: load it then.
        """
        if self._offered is None:
            if self._head is None:
                self._head = self._find(self.done + 1)
            if self._head is not None:
                self._offered = self._with_openings(self._head)
        return self._offered

    def commit(self) -> Record:
        """Forget the oldest batch: it is in the database."""
        offered, head = self.peek(), self._head
        assert offered is not None
        assert head is not None
        self._pass(head.number)
        if head.number <= self.spooled_to:
            self.disk_rows = self.disk_rows - head.sealed.rows if self.on_disk else 0
        self.openings.apply(offered)
        if self.marks is not None and self.disk_rows <= self.marks.rows_low:
            self.is_spooling = False
        return offered

    def leave(self, sources: Iterable[Source], now: int) -> None:
        """Restate the streams that go on, because what was committed on the lane may be undone.

        Args:
            sources: every sid of the family that still receives.
        """
        self.openings.lose()
        self._live = {source.key: source for source in sources}
        self._now = now
        self._offered = None

    def _find(self, number: int) -> Record | None:
        queue = self._front if number <= self.spooled_to else self._tail
        return queue[0] if queue and queue[0].number == number else None

    def _with_openings(self, record: Record) -> Record:
        rows = self.openings.restate(record, self._now, self._live)
        return replace(record, sealed=with_openings(record.sealed, rows)) if rows else record

    def _pass(self, number: int) -> None:
        """Everything up to this number is done with."""
        self.done = number
        self._head = self._offered = None
        while self._front and self._front[0].number <= number:
            self._front.popleft()
        while self._tail and self._tail[0].number <= number:
            self._count(self._tail.popleft(), -1)

    # --- between memory and disk ---

    @property
    def wants_disk(self) -> bool:
        """True when something is to be written to the disk without waiting for the next turn."""
        marks = self.marks
        return (
            marks is not None
            and bool(self._tail)
            and (
                self.is_spooling
                or self.rows >= marks.rows_high
                or self.size_bytes >= marks.bytes_high
            )
        )

    def to_spool(self, now: int, size_bytes: int, *, force: bool = False) -> list[Record]:
        """Return the batches that are to be written to the disk now, oldest first, about so many bytes of them.

        Args:
            force: whatever the marks say: the process is about to end.
        """
        if self.marks is None or not self._tail:
            return []
        is_old = not 0 <= now - self._tail[0].first_at < self.marks.age
        self.is_spooling = self.wants_disk or is_old or force
        chosen: list[Record] = []
        for record in self._tail if self.is_spooling else ():
            chosen.append(record)
            size_bytes -= record.sealed.size_bytes
            if size_bytes <= 0:
                break
        return chosen

    def spooled(self, number: int) -> None:
        """Note that the batches up to this number are on the disk; some may have been committed meanwhile."""
        self.spooled_to = max(self.spooled_to, number)
        while self._tail and self._tail[0].number <= number:
            record = self._tail.popleft()
            self._count(record, -1)
            self.disk_rows += record.sealed.rows

    def loaded(self, record: Record) -> None:
        """Take a batch that was read from the disk, in order; one that is committed already is passed over."""
        if record.number > self.done:
            self._front.append(record)

    def unreadable(self, number: int, sources: Iterable[Source]) -> None:
        """Pass over the batches up to this number: the disk does not give them back.

        What was open before them is not known to go on behind them, so nothing is claimed from there on until the next
        batch that is put restates what goes on now. Call it when everything before them is committed.

        Args:
            sources: every sid of the family that still receives.
        """
        if number <= self.done:
            return
        self._pass(number)
        self.openings.forget()
        self._lost |= {source.key: source for source in sources}
        if not self.on_disk:
            self.disk_rows = 0

    # --- drops ---

    def _drop(self, batch: Batch, now: int) -> None:
        self._ended += _ended(batch)
        for name, rows in batch.rows.items():
            if name == "gaps":
                self._gaps += rows[: GAPS_KEPT_MAX - len(self._gaps)]  # type: ignore[arg-type]
            else:
                self.dropped[name] += len(rows)
        self._lost |= {key: s for key, s in batch.sources.items() if batch.notes[key].ranges}
        for key, notes in batch.notes.items():
            for closing, _ in notes.closed:
                last = self._gone.get((key, closing.ticker), 0)
                self._gone[key, closing.ticker] = max(last, closing.stream)
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


def _ended(batch: Batch) -> list[SidKey]:
    """The sids that this batch is the last of."""
    return [key for key, source in batch.sources.items() if source.ended]


def with_openings(sealed: SealedBatch, rows: Sequence[tuple[Any, ...]]) -> SealedBatch:
    """Return the batch with these rows before its own in listen_opened."""
    own = rows_of(sealed, "listen_opened")
    opened = seal({"listen_opened": [*rows, *own]})
    tables = {table.name: table for table in sealed.tables}
    old = tables.get("listen_opened")
    freed = sum(map(len, old.payloads)) + len(own) * PREFIX_BYTES if old is not None else 0
    tables["listen_opened"] = opened.tables[0]
    return SealedBatch(
        tuple(tables[name] for name in GATHERER_TABLES if name in tables),
        sealed.rows + len(rows),
        sealed.size_bytes + opened.size_bytes - freed,
        sealed.sids_json,
    )
