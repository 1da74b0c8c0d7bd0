"""The bounded buffer between a family's batcher and its lane: the socket never waits, and a drop is written down.

One queue in the order of the cuts. Its front may lie on the disk, its tail is in memory; batches are sealed when they are
put, numbered for good, and only ever move from the tail of memory to the tail of the disk, and from the front to the
lane. Memory above its high mark, or a batch that waits too long, begins the spooling; from then on everything goes to
the disk, until what lies there is below the low mark again. When disk and memory are full the newest batch is dropped
whole, its rows become a gap, and the first batch accepted afterwards restates the streams that go on. Pure: who moves
the batches is told here what to move.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from libs.flow.batch import Batch, SidKey, Source, restate
from libs.marketdata.rows import GapRow
from libs.marketdata.tables import Family
from libs.store.batches import seal
from libs.store.spool_format import Gone, Record
from services.connector.drops import Drops, ended_in
from services.connector.openings import RESTATED_MAX, Offer, Openings, offers

BYTES_MAX = 256 << 20
ROOM_AFTER_DROP = 0.75
"""Part of memory that may be taken when batches are accepted again after a drop."""


@dataclass(frozen=True, slots=True)
class Marks:
    """When batches go to the disk. rows and bytes of memory; age in microseconds; rows_low of what lies on the disk."""

    rows_high: int
    rows_low: int
    bytes_high: int
    age: int


@dataclass(slots=True)
class Buffer:
    """The batches of one family that are not committed; at most rows_max rows and bytes_max bytes of them in memory.

    Attributes:
        rows, size_bytes: what waits in memory. disk_rows: what waits on the disk, roughly after losses there.
        drops: what found no room.
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
    taken: int = 0
    done: int = 0
    spooled_to: int = 0
    is_spooling: bool = False
    openings: Openings = field(default_factory=Openings)
    _tail: deque[Record] = field(default_factory=deque)
    _front: deque[Record] = field(default_factory=deque)
    _head: Record | None = None
    _offered: Offer | None = None
    _offers: Iterator[Offer] | None = None
    _live: dict[SidKey, Source] = field(default_factory=dict)
    _now: int = 0
    drops: Drops = field(init=False)

    def __post_init__(self) -> None:
        self.drops = Drops(self.family)

    def __len__(self) -> int:
        return self.taken - self.done

    @property
    def dropped(self) -> Counter[str]:
        """Rows dropped, by table."""
        return self.drops.rows

    # --- the tail ---

    def put(self, batch: Batch, now: int) -> list[GapRow]:
        """Take a batch, or drop it when there is no room.

        Call it right after the cut that made the batch.

        Returns:
            Gap rows to be written now: what was dropped before a batch that found room again.
        """
        if self._tail and not self._has_room(batch.count):
            self.drops.add(batch, now)
            return []
        if self.drops.lost:
            self._go_on(batch, now)
        self._append(batch)
        return self.take_gaps(now)

    def _go_on(self, batch: Batch, now: int) -> None:
        """Restate the streams that go on behind a loss, and let their books be asked for.

        A sid that has no frame yet comes with its next one, and so does what would be too many rows at once.
        """
        left: dict[SidKey, Source] = {}
        for key, source in self.drops.lost.items():
            if len(batch.restated) >= RESTATED_MAX:
                left[key] = source
            elif still := restate([batch], {key: source}, now):
                left |= still
            else:
                source.missed()
        self.drops.lost = left

    def _has_room(self, rows: int) -> bool:
        """True when so many rows more may wait; after a drop only when a quarter is free again: one drop, one gap."""
        part = ROOM_AFTER_DROP if self.drops.is_open else 1
        fits = self.rows + rows <= self.rows_max * part
        return fits and self.size_bytes < self.bytes_max * part

    def take_gaps(self, now: int) -> list[GapRow]:
        """Return what was dropped and not said yet, as gap rows to be written now; put() does it by itself."""
        return self.drops.take_gaps(now)

    def _append(self, batch: Batch) -> None:
        rows: dict[str, Sequence[tuple[object, ...]]] = dict(batch.rows)
        if opened := batch.opened_rows():
            rows["listen_opened"] = opened
        self.taken += 1
        drops = self.drops
        ended = (*drops.ended, *ended_in(batch))
        gone = tuple(Gone(*key, ticker, stream) for (key, ticker), stream in drops.gone.items())
        record = Record(self.taken, batch.first_at, seal(rows), ended, gone)
        drops.ended, drops.gone = [], {}
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
    def oldest(self) -> Record | None:
        """The first batch of what waits; None when nothing waits, or it is on the disk and nobody read it yet."""
        first = self._head or next(iter(self._front or self._tail), None)
        return first if first is not None and first.number == self.done + 1 else None

    @property
    def oldest_at(self) -> int | None:
        """When the first row of what waits came, microseconds; None when nothing waits, or nobody read it yet."""
        return self.oldest.first_at if self.oldest is not None else None

    def peek(self) -> Record | None:
        """Return the oldest batch, or what is to be restated before it; the same until it is committed, or left.

        None also when it is on the disk: load it then.
        """
        if self._offered is None:
            if self._head is None:
                self._head = self._find(self.done + 1)
            if self._head is not None:
                self._offered = self._offer(self._head)
        return self._offered.record if self._offered is not None else None

    def _offer(self, head: Record) -> Offer:
        if self._offers is None:
            openings = self.openings.restate(head, self._now, self._live)
            self._offers = offers(head, openings, RESTATED_MAX)
        return next(self._offers)

    def commit(self) -> Record:
        """Forget what peek() returned: it is in the database."""
        record, offered, head = self.peek(), self._offered, self._head
        assert record is not None
        assert offered is not None
        assert head is not None
        if not offered.is_whole:
            self._offered = None
            return record
        self._pass(head.number)
        if head.number <= self.spooled_to:
            self.disk_rows = self.disk_rows - head.sealed.rows if self.on_disk else 0
        # As it was put: what was restated on it goes on as before, and may be a million rows.
        self.openings.apply(head)
        if self.marks is not None and self.disk_rows <= self.marks.rows_low:
            self.is_spooling = False
        return record

    def leave(self, sources: Iterable[Source], now: int) -> None:
        """Restate the streams that go on, because what was committed on the lane may be undone.

        Args:
            sources: every sid of the family that still receives.
        """
        self.openings.lose()
        self._live = {source.key: source for source in sources}
        self._now = now
        self._offered = self._offers = None

    def _find(self, number: int) -> Record | None:
        queue = self._front if number <= self.spooled_to else self._tail
        return queue[0] if queue and queue[0].number == number else None

    def _pass(self, number: int) -> None:
        """Everything up to this number is done with."""
        self.done = number
        self._head = self._offered = self._offers = None
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
        self.drops.lost |= {source.key: source for source in sources}
        if not self.on_disk:
            self.disk_rows = 0
