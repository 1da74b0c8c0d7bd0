"""Clients and unions that are broken in one place on purpose, and what a verdict has to find of them."""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import pytest

from libs.flow.batch import Batch, SidKey, Source
from libs.marketdata.rows import ListenOpenedRow
from libs.marketdata.sequence import Margin, Sequence, Step
from libs.marketdata.streams import Change, Stream
from libs.marketdata.tables import Table, production_key
from libs.store.merge_transaction import Identity, Merged, Segment
from services.connector import buffer, judge, openings, rejects, sids
from services.deduplicator import facts
from services.deduplicator.board import Board
from services.deduplicator.merge import MergeRoom
from tests.simulation import merged
from tests.simulation.ledger import LedgerConnection

Patch = pytest.MonkeyPatch


def no_start_margin(patch: Patch) -> None:
    """Claims begin with the frame that began the stream."""
    opening = sids.Sid._opening

    def at_once(*args: Any) -> ListenOpenedRow:
        return opening(*args)._replace(margin=0)

    patch.setattr(sids.Sid, "_opening", at_once)


def no_end_margin(patch: Patch) -> None:
    """Claims reach to the last frame."""
    patch.setattr(Margin, "value", property(lambda _: 0))


def shared_occurrences(patch: Patch) -> None:
    """All connections count a market's deltas together."""
    opened = sids.Sid.open_stream
    shared: dict[str, Stream] = {}

    def open_shared(sid: sids.Sid, ticker: str | None, *args: Any, **kwargs: Any) -> Stream:
        stream = opened(sid, ticker, *args, **kwargs)
        if ticker is None:
            return stream
        known = shared.setdefault(ticker, stream)
        known.epoch, known.claimed, known.number = stream.epoch, stream.claimed, stream.number
        sid.streams[ticker] = known
        return known

    patch.setattr(sids.Sid, "open_stream", open_shared)


def gaps_are_passed_over(patch: Patch) -> None:
    """A number that jumps is taken for the next."""
    known = Sequence.judge

    def lenient(sequence: Sequence, seq: int) -> Step:
        step = known(sequence, seq)
        return Step.NEXT if step is Step.GAP else step

    def count(sequence: Sequence, seq: int, sent_at: int) -> None:
        sequence.last, sequence.sent_at = seq, sent_at
        if sequence._from < 0:
            sequence._from, sequence._sent_from = seq, sent_at

    patch.setattr(Sequence, "judge", lenient)
    patch.setattr(Sequence, "count", count)


def gaps_restart_nothing(patch: Patch) -> None:
    """After a gap no stream begins anew."""
    patch.setattr(sids.Sid, "restart", lambda *_: None)


def silence_means_nothing(patch: Patch) -> None:
    """A ticker channel claims what it did not hear for however long."""
    patch.setattr(judge.Judge, "_is_silent", lambda *_: False)


def drops_are_not_restated(patch: Patch) -> None:
    """After a batch was dropped nobody says again what goes on."""

    def forget(_b: list[Batch], _lost: Mapping[SidKey, Source], _now: int) -> dict[SidKey, Source]:
        return {}

    patch.setattr(buffer, "restate", forget)


def restores_are_not_restated(patch: Patch) -> None:
    """After the database went back nobody says again what goes on."""
    patch.setattr(openings.Openings, "restate", lambda *_: [])


def rejected_frames_cost_nothing(patch: Patch) -> None:
    """A frame that cannot be read is counted as if it had been stored."""
    taken = rejects.Rejects._reject

    def count_only(self: rejects.Rejects, *args: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(sids.Sid, "end_stream", lambda *_: None)
            inner.setattr(sids.Sid, "restart", lambda *_: None)
            taken(self, *args)

    patch.setattr(rejects.Rejects, "_reject", count_only)


def deleted_markets_stay_claimed(patch: Patch) -> None:
    """What a market's stream proves does not end when the market is given back."""
    patch.setattr(sids.Sid, "disclaim", lambda *_: None)


MUTANTS: list[tuple[Callable[[Patch], None], str, str]] = [
    (no_start_margin, "clock_step,reset,close", "unsound"),
    (no_end_margin, "reset,close,delay,clock_step", "unsound"),
    (shared_occurrences, "hand_over", "extra"),
    (gaps_are_passed_over, "drop", "unsound"),
    (gaps_restart_nothing, "drop", "loose"),
    (silence_means_nothing, "stall", "silence"),
    (drops_are_not_restated, "database_away", "loose"),
    (restores_are_not_restated, "database_back", "loose"),
    (rejected_frames_cost_nothing, "truncate,rename_field", "unsound"),
    (deleted_markets_stay_claimed, "unwant", "unsound"),
]
"""(what to break, kinds of trouble in which it matters, the finding)."""

# --- unions ---


class Mutant(NamedTuple):
    """What to break, and the finding that has to come of it."""

    mutate: Callable[[Patch], None]
    finding: str

    @property
    def name(self) -> str:
        return self.mutate.__name__


def multiplicities_are_summed(patch: Patch) -> None:
    """Every gatherer's copies are facts of their own."""
    known = merged.key_of

    def key_of(table: Table, row: Any, segment: Segment) -> Identity:
        return known(table, row, segment), segment.gatherer

    _with_identity(patch, lambda names: (*names, "connection"))
    patch.setattr(merged, "key_of", key_of)


def identity_has_no_occurrence(patch: Patch) -> None:
    """A delta is its ticker, time, price, side and size."""

    def without(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name != "occurrence")

    _with_identity(patch, without)
    patch.setattr(merged, "production_key", lambda table: without(production_key(table)))
    patch.setattr(merged, "_key_columns", merged._key_columns.__wrapped__)


def places_are_occurrences(patch: Patch) -> None:
    """A delta is numbered by its place among all of its millisecond, which a stream's first does not know."""
    known = Stream.count

    def count(stream: Stream, exchange_ts: int, change: Change) -> int:
        known(stream, exchange_ts, change)
        return stream.deltas

    patch.setattr(Stream, "count", count)


def first_places_are_told(patch: Patch) -> None:
    """A stream says places also in the millisecond it may have begun inside of."""
    patch.setattr(Stream, "pos", property(lambda stream: stream.deltas))
    patch.setattr(Stream, "whole", property(lambda _: True, lambda *_: None))


def identities_are_known_before_the_commit(patch: Patch) -> None:
    """What a transaction that was taken back had staged counts as merged."""

    def abandon(room: MergeRoom) -> None:
        room.confirm(Merged(0, {}, {}, ()), 1 << 60)

    patch.setattr(MergeRoom, "abandon", abandon)


def _with_identity(patch: Patch, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
    known = facts._identity_of

    def identity_of(table: Table) -> Callable[[Any], Identity]:
        names = table.column_names
        if table.name != "orderbook_deltas":
            return known(table)
        return itemgetter(*(names.index(name) for name in change(table.identity)))

    patch.setattr(facts, "_identity_of", identity_of)


def rooms_remember_too_much(patch: Patch) -> None:
    """What a transaction had staged that was never committed counts as merged."""

    def remember(room: MergeRoom) -> None:
        room.confirm(Merged(0, {}, {}, ()), 1 << 60)

    patch.setattr(MergeRoom, "forget", remember)
    patch.setattr(MergeRoom, "abandon", remember)


def positions_outlive_the_writer(patch: Patch) -> None:
    """A reader goes on from where it was when the writer begins anew."""
    known = Board.begin_anew

    def begin_anew(board: Board) -> None:
        generation = board.generation
        sessions = {zone: feed.session for zone, feed in board.feeds.items()}
        known(board)
        board.generation = generation
        for zone, feed in board.feeds.items():
            feed.session = sessions[zone]

    patch.setattr(Board, "begin_anew", begin_anew)


def batches_are_read_by_their_ids(patch: Patch) -> None:
    """A reader takes what has a larger number than whatever it has seen, as one does who orders by serial ids."""
    known = LedgerConnection._next_batches
    newest: dict[Any, int] = {}

    def next_batches(ledger: LedgerConnection, *args: Any) -> list[dict[str, Any]]:
        found, database = known(ledger, *args), ledger._database
        seen = newest.get(database, 0)
        for row in found:
            if row["batch_no"] is not None:
                newest[database] = max(newest.get(database, 0), row["batch_id"])
                if row["batch_id"] < seen:
                    row["dropped_at"] = row["committed_at"]
        return found

    patch.setattr(LedgerConnection, "_next_batches", next_batches)


MERGER_MUTANTS: list[tuple[Callable[[Patch], None], str, str]] = [
    (rooms_remember_too_much, "production_doubt", "unmerged"),
    (positions_outlive_the_writer, "production_back", "unmerged"),
    (batches_are_read_by_their_ids, "batch_held", "unmerged"),
]

UNION_MUTANTS = [
    Mutant(multiplicities_are_summed, "extra"),
    Mutant(shared_occurrences, "extra"),
    Mutant(places_are_occurrences, "extra"),
    Mutant(identity_has_no_occurrence, "whole"),
    Mutant(no_start_margin, "unsound"),
    Mutant(no_end_margin, "unsound"),
    Mutant(first_places_are_told, "order"),
    Mutant(identities_are_known_before_the_commit, "whole"),
]
