"""The streams that go on at the front of what is not committed, so that their openings can be written once more.

Advanced by every batch that is committed. When what was committed may be undone (a lane was lost), the next batch of a
sid gets openings of the streams that were open before its first frame: everything before them is then not needed. The
same state, kept beside a spool, lets the next process do so. Pure.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from libs.flow.batch import Alive, SidKey, Source
from libs.marketdata.binary import codec
from libs.marketdata.listening import ORDERBOOK_CHANNEL
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.sequence import START_MARGIN_UNSENT
from libs.marketdata.tables import GATHERER_TABLES
from libs.store.batches import PREFIX_BYTES, SealedBatch, seal
from libs.store.spool_format import Record

RESTATED_MAX = 5_000
"""Openings that are written once more at a time. A process may have a quarter of a million streams; making their rows in
one go would hold up its event loop, and with it the sockets, for seconds. 5,000 take some hundredths of a second."""


@dataclass(slots=True)
class _Sid:
    """streams: number of the open stream by ticker (None: the whole channel). is_shared: a snapshot has them too."""

    channel: str
    slot: str
    margin: int
    streams: dict[str | None, int] = field(default_factory=dict)
    is_shared: bool = False

    def own(self) -> dict[str | None, int]:
        """Return the streams to be changed: ours alone."""
        if self.is_shared:
            self.streams, self.is_shared = self.streams.copy(), False
        return self.streams


class Openings:
    """See the module. `changes` grows with every change, `losses` with every lose()."""

    def __init__(self) -> None:
        self.changes = 0
        self.losses = 0
        self._sids: dict[SidKey, _Sid] = {}
        self._lost: set[SidKey] = set()

    @property
    def sids(self) -> dict[SidKey, tuple[str, str]]:
        """Channel and slot of every sid that has not ended."""
        return {key: (sid.channel, sid.slot) for key, sid in self._sids.items()}

    def apply(self, record: Record) -> None:
        """Go past a batch that is committed, with what it restated or without."""
        sealed = record.sealed
        for gone in record.gone:
            self._close((gone.connection, gone.sid), gone.ticker, gone.stream)
        for row in _opened(sealed):
            self._open(row)
        for closing in _closed(sealed):
            self._close((closing.connection, closing.sid), closing.ticker, closing.stream)
        for key in record.ended:
            if self._sids.pop(key, None) is not None:
                self.changes += 1
            self._lost.discard(key)
        if self._lost:
            self._lost -= _first_ranges(sealed).keys()

    def lose(self) -> None:
        """What was committed may be undone: every sid's next batch restates its streams."""
        self._lost = set(self._sids)
        self.losses += 1

    def forget(self) -> None:
        """Batches are missing here, so nobody knows what goes on; streams that open later are known again."""
        self._sids.clear()
        self._lost.clear()
        self.changes += 1

    def restate(
        self, record: Record, now: int, live: Mapping[SidKey, Source]
    ) -> Iterator[ListenOpenedRow]:
        """Yield the openings that the next batch needs; none unless something was lost.

        They may be written with the batch or before it, at once or in parts: each names the batch's first frame of its
        sid, and proves nothing without the batch. Nothing may be applied meanwhile.

        Args:
            live: sources of this process; they are told of their later opening.
        """
        if not self._lost:
            return
        firsts = _first_ranges(record.sealed)
        gone = _gone_before(record, firsts)
        for key, first in firsts.items():
            sid = self._sids.get(key)
            if sid is None or key not in self._lost:
                continue
            source = live.get(key)
            for ticker, stream in sid.streams.items():
                if gone.get((key, ticker), -1) >= stream:
                    continue
                yield (
                    source.reopening(Alive(ticker, stream, 0), first.seq_from, first.sent_from, now)
                    if source is not None
                    else _reopening(sid, first, ticker, stream, now)
                )

    # --- kept beside a spool ---

    def dump(self, done: int) -> "Snapshot":
        """Return the state as of record `done`, which may be packed in another thread.

        Nothing is copied here, a million streams are too many at once: a sid's are when it changes next.
        """
        sids = [
            (str(connection), sid, s.channel, s.slot, s.margin, s.streams)
            for (connection, sid), s in self._sids.items()
        ]
        for own in self._sids.values():
            own.is_shared = True
        lost = [(str(connection), sid) for connection, sid in self._lost]
        return Snapshot(done, sids, lost, self.changes, self.losses)

    @classmethod
    def load(cls, state: bytes) -> "tuple[Openings, int]":
        """Return the state and the record as of which it was.

        Raises:
            ValueError: it cannot be read.
        """
        openings = cls()
        try:
            said = json.loads(state)
            for connection, number, channel, slot, margin, streams, whole in said["sids"]:
                tickers: dict[str | None, int] = dict(streams)
                if whole is not None:
                    tickers[None] = whole
                openings._sids[UUID(connection), number] = _Sid(channel, slot, margin, tickers)
            openings._lost = {(UUID(connection), number) for connection, number in said["lost"]}
            return openings, int(said["done"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no state of openings: {error!r}") from error

    def _open(self, row: ListenOpenedRow) -> None:
        if row.ticker is None and row.channel == ORDERBOOK_CHANNEL:
            return  # all streams of the sid go on: none begins
        key = row.connection, row.sid
        sid = self._sids.get(key)
        if sid is None:
            sid = self._sids[key] = _Sid(row.channel, row.slot, row.margin)
        sid.margin = max(sid.margin, row.margin)
        sid.own()[row.ticker] = max(row.stream, sid.streams.get(row.ticker, row.stream))
        self.changes += 1

    def _close(self, key: SidKey, ticker: str | None, stream: int) -> None:
        sid = self._sids.get(key)
        if sid is not None and sid.streams.get(ticker, stream + 1) <= stream:
            del sid.own()[ticker]
            self.changes += 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The openings as of the record `done`, unchanging; lost: the sids that are still to be restated."""

    done: int
    sids: list[tuple[str, int, str, str, int, dict[str | None, int]]]
    lost: list[tuple[str, int]]
    changes: int
    losses: int

    def pack(self) -> bytes:
        """Return what Openings.load() reads."""
        # Sid by sid: one call for all would hold up the event loop's thread for as long as it takes.
        sids = [
            json.dumps((*head, _named(streams), streams.get(None)), separators=(",", ":"))
            for *head, streams in self.sids
        ]
        lost = json.dumps(self.lost)
        return f'{{"done":{self.done},"lost":{lost},"sids":[{",".join(sids)}]}}'.encode()


class Keeper:
    """Tells when the openings are to be written beside a spool once more: not at every change, they are many."""

    def __init__(self) -> None:
        self._changes = self._losses = -1

    def due(self, openings: Openings, done: int, *, delete: bool) -> Snapshot | None:
        """Return what is to be written now, None for nothing.

        Args:
            delete: records are about to go, and with them what they opened and closed.
        """
        is_lost = openings.losses != self._losses
        is_due = is_lost or (delete and openings.changes != self._changes)
        return openings.dump(done) if is_due else None

    def saved(self, snapshot: Snapshot) -> None:
        """Note that it was written."""
        self._changes, self._losses = snapshot.changes, snapshot.losses


def _named(streams: Mapping[str | None, int]) -> dict[str, int]:
    return {ticker: stream for ticker, stream in streams.items() if ticker is not None}


def _reopening(
    sid: _Sid, first: ListenRangeRow, ticker: str | None, stream: int, now: int
) -> ListenOpenedRow:
    """Build the row for a sid of a process that is gone; with the wider margin where times may be those of our clock."""
    margin = START_MARGIN_UNSENT if first.margin >= START_MARGIN_UNSENT else sid.margin
    return ListenOpenedRow(
        now, first.seq_from, first.sent_from, margin, stream, first.sid, 0, first.connection,
        sid.channel, sid.slot, ticker,
    )  # fmt: skip


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


class Offer(NamedTuple):
    """What is to be written next. is_whole: the batch itself; else openings that lead up to it."""

    record: Record
    is_whole: bool


def offers(record: Record, openings: Iterator[ListenOpenedRow], size: int) -> Iterator[Offer]:
    """Yield what is to be written one after the other: openings alone, so many at a time, then the batch with the rest."""
    while len(rows := list(islice(openings, size))) == size:
        part = seal({"listen_opened": rows})
        yield Offer(replace(record, sealed=part, ended=(), gone=()), is_whole=False)
    whole = replace(record, sealed=with_openings(record.sealed, rows)) if rows else record
    yield Offer(whole, is_whole=True)


def ranges_of(sealed: SealedBatch) -> Iterable[tuple[SidKey, ListenRangeRow]]:
    """Yield the ranges of a batch with their sids, in the order of their frames."""
    for row in rows_of(sealed, "listen_ranges"):
        yield (row.connection, row.sid), row


def rows_of(sealed: SealedBatch, table: str) -> list[Any]:
    """Return the rows of one table of a sealed batch."""
    decode = codec(table).decode
    return [decode(payload)[0] for t in sealed.tables if t.name == table for payload in t.payloads]


def _first_ranges(sealed: SealedBatch) -> dict[SidKey, ListenRangeRow]:
    firsts: dict[SidKey, ListenRangeRow] = {}
    for key, row in ranges_of(sealed):
        firsts.setdefault(key, row)
    return firsts


def _gone_before(
    record: Record, firsts: Mapping[SidKey, ListenRangeRow]
) -> dict[tuple[SidKey, str | None], int]:
    """Streams that ended before the batch's first frame of their sid: each ticker's newest."""
    gone = {((g.connection, g.sid), g.ticker): g.stream for g in record.gone}
    for closing in _closed(record.sealed):
        key = closing.connection, closing.sid
        if key in firsts and closing.seq < firsts[key].seq_from:
            gone[key, closing.ticker] = max(closing.stream, gone.get((key, closing.ticker), 0))
    return gone


def _opened(sealed: SealedBatch) -> list[ListenOpenedRow]:
    return rows_of(sealed, "listen_opened")


def _closed(sealed: SealedBatch) -> list[ListenClosedRow]:
    return rows_of(sealed, "listen_closed")
