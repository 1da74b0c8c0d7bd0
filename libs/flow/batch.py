"""Batching: rows of one table family, cut into batches that carry the proof of what they hold.

Sessions put rows straight into the tables of a Batcher; nothing is cut in between, so a frame is never split. At the
cut, every sid of the family hands over what its frames since the last cut prove: ranges, openings and closings. A
range therefore says exactly that all rows of these frames stand in this batch.

A batch that is lost (dropped, or undone by a database that went back) leaves a hole in the ranges, and an opening does
not count behind a hole. `restate` writes the openings of the streams that go on into the first batch behind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.tables import Family

Row = tuple[Any, ...]
SidKey = tuple[UUID, int]
"""(connection, sid)."""
ROW_BYTES = 160
"""What a row of fixed columns and a ticker packs to, bytes, roughly; larger rows are added by `grow`."""
LISTEN_TABLES = ("listen_ranges", "listen_opened", "listen_closed")


class Alive(NamedTuple):
    """A stream that goes on: its ticker (None: the whole channel), its number, the seq it opened at."""

    ticker: str | None
    stream: int
    opened_seq: int


class Closing(NamedTuple):
    """A closing with the seq its stream had opened at."""

    row: ListenClosedRow
    opened_seq: int


class Notes(NamedTuple):
    """What one sid's frames since the last cut prove."""

    ranges: Sequence[ListenRangeRow]
    opened: Sequence[ListenOpenedRow]
    closed: Sequence[Closing]


class Source(Protocol):
    """One sid of one connection, as batches see it."""

    @property
    def key(self) -> SidKey: ...

    @property
    def slot(self) -> str: ...

    @property
    def ended(self) -> bool:
        """True when no frame can come any more: after the next drain it is forgotten."""
        ...

    def drain(self, now: int) -> Notes | None:
        """Hand over what was proved since the last call; None when nothing was."""
        ...

    def alive(self) -> Iterable[Alive]:
        """The streams without a closing of their own, also after the sid ended."""
        ...

    def reopening(self, alive: Alive, seq: int, sent_at: int, now: int) -> ListenOpenedRow:
        """Build the row that restates a stream's opening at the frame `seq`."""
        ...

    def missed(self) -> None:
        """Note that rows of this sid are missing: what is built from them is to be observed anew."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When a batch is due: whichever comes first. rows and size_bytes are counts, age is microseconds."""

    rows: int
    size_bytes: int
    age: int


@dataclass(slots=True)
class Batch:
    """The rows of one commit, before they are packed.

    Attributes:
        rows: by table, the listening rows included.
        notes: what each sid proved in it, by sid.
        sources: the sids of `notes`.
        first_at: when its first row came, microseconds.
    """

    family: Family
    rows: dict[str, list[Row]]
    notes: dict[SidKey, Notes]
    sources: dict[SidKey, Source]
    first_at: int
    restated: list[ListenOpenedRow] = field(default_factory=list)

    @property
    def facts(self) -> int:
        """Number of rows but the listening rows."""
        return sum(len(rows) for name, rows in self.rows.items() if name not in LISTEN_TABLES)

    @property
    def count(self) -> int:
        """Number of all rows."""
        return sum(map(len, self.rows.values()))

    def opened_rows(self) -> list[Row]:
        """The rows of listen_opened, the restated ones first."""
        return [*self.restated, *(row for notes in self.notes.values() for row in notes.opened)]


class Batcher:
    """Collects the rows of one family over all connections of a process until a batch is due."""

    def __init__(self, family: Family, tables: Iterable[str], limits: Limits) -> None:
        self.family = family
        self.limits = limits
        self._tables: dict[str, list[Row]] = {name: [] for name in tables}
        self._sources: dict[SidKey, Source] = {}
        self._grown = 0
        self._first_at: int | None = None
        self._due_at: int | None = None
        self._is_hurried = False

    def table(self, name: str) -> list[Row]:
        """The list that a table's rows are appended to; stays the same list for ever."""
        return self._tables[name]

    def attach(self, source: Source) -> None:
        """Ask this sid at every cut, until it has ended.

        Raises:
            ValueError: another one bears this key, and what it proved was not asked for yet.
        """
        if self._sources.setdefault(source.key, source) is not source:
            raise ValueError(f"sid {source.key[1]} of {source.key[0]} is attached already")

    @property
    def sources(self) -> list[Source]:
        """The sids that still receive."""
        return list(self._sources.values())

    def grow(self, size_bytes: int) -> None:
        """Count the bytes of a row that is larger than usual."""
        self._grown += size_bytes

    def touch(self, now: int) -> None:
        """Note that frames came: the age of the batch begins with the first."""
        if self._first_at is None:
            self._first_at = now

    def hurry(self, now: int, age: int) -> None:
        """Have the batch due within `age` microseconds: somebody waits for one of its rows."""
        if self._due_at is None:
            self._due_at, self._is_hurried = now + age, True

    def take_hurry(self) -> bool:
        """True once after the batch was hurried: who waits for due_in() must look again."""
        is_hurried, self._is_hurried = self._is_hurried, False
        return is_hurried

    @property
    def count(self) -> int:
        """Rows of facts waiting for the cut."""
        return sum(map(len, self._tables.values()))

    @property
    def is_full(self) -> bool:
        count = self.count
        return (
            count >= self.limits.rows or count * ROW_BYTES + self._grown >= self.limits.size_bytes
        )

    def is_due(self, now: int) -> bool:
        """True when the batch is full or its first row is old enough, or lies after now: the clock was set back."""
        if self._due_at is not None and now >= self._due_at:
            return True
        if self._first_at is None:
            return self.is_full
        return self.is_full or not 0 <= now - self._first_at < self.limits.age

    def due_in(self, now: int) -> int:
        """Return the longest wait until the next look, microseconds: so that no row waits longer than the age allows."""
        waited = 0 if self._first_at is None else now - self._first_at
        due_in = min(max(self.limits.age - waited, 0), self.limits.age)
        return due_in if self._due_at is None else min(due_in, max(self._due_at - now, 0))

    def cut(self, now: int) -> Batch | None:
        """Take everything collected as one batch; None when there is nothing."""
        rows = {name: table[:] for name, table in self._tables.items() if table}
        for table in self._tables.values():
            table.clear()
        self._due_at = None
        notes = self._drain(now)
        if not rows and not notes:
            self._first_at = None
            return None
        listening = zip(LISTEN_TABLES, _listening(notes.values()), strict=True)
        rows.update((name, told) for name, told in listening if told)
        sources = {key: self._sources[key] for key in notes}
        for key in [key for key, source in self._sources.items() if source.ended]:
            del self._sources[key]
        first_at = now if self._first_at is None else self._first_at
        self._first_at, self._grown = None, 0
        return Batch(self.family, rows, notes, sources, first_at)

    def _drain(self, now: int) -> dict[SidKey, Notes]:
        drained = ((key, source.drain(now)) for key, source in self._sources.items())
        return {key: notes for key, notes in drained if notes is not None}


def _listening(notes: Iterable[Notes]) -> tuple[list[Row], list[Row], list[Row]]:
    ranges: list[Row] = []
    opened: list[Row] = []
    closed: list[Row] = []
    for note in notes:
        ranges += note.ranges
        opened += note.opened
        closed += (closing.row for closing in note.closed)
    return ranges, opened, closed


def restate(
    batches: Sequence[Batch], lost: Mapping[SidKey, Source], now: int
) -> dict[SidKey, Source]:
    """Write openings of the streams that go on into the first batch that has frames of their sid.

    Call it right after a cut, with every batch not yet committed that was cut since (oldest first): a stream that has
    ended meanwhile is known from the closings in them.

    Args:
        batches: where the rows may go; each batch's `restated` grows.
        lost: the sids of which a batch was lost before these.

    Returns:
        The sids that have no frame in any of the batches and have not ended: they are still to be restated.
    """
    left = {}
    for key, source in lost.items():
        at = next(
            (i for i, b in enumerate(batches) if key in b.notes and b.notes[key].ranges), None
        )
        if at is not None:
            _restate_sid(batches[at:], key, source, now)
        elif not source.ended:
            left[key] = source
    return left


def _restate_sid(batches: Sequence[Batch], key: SidKey, source: Source, now: int) -> None:
    """Restate at the first frame of the sid in the first batch: streams opened before it and not closed before it."""
    first = batches[0].notes[key].ranges[0]
    seq = first.seq_from
    going = [alive for alive in source.alive() if alive.opened_seq < seq]
    for batch in batches:
        notes = batch.notes.get(key)
        for row, opened_seq in notes.closed if notes is not None else ():
            if opened_seq < seq <= row.seq:
                going.append(Alive(row.ticker, row.stream, opened_seq))
    batches[0].restated += [source.reopening(alive, seq, first.sent_from, now) for alive in going]
