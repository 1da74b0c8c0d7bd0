"""The verdict can fail: a client that is broken in one place on purpose is caught by some seed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from libs.flow.batch import Batch, SidKey, Source
from libs.marketdata.rows import ListenOpenedRow
from libs.marketdata.sequence import Margin, Sequence, Step
from libs.marketdata.streams import Stream
from services.connector import buffer, judge, openings, rejects, sids
from tests.simulation.plan import plan_of
from tests.simulation.trial import Trial, try_plan

SEEDS_MAX = 40

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


def trials(kinds: str) -> Iterator[Trial]:
    for seed in range(SEEDS_MAX):
        yield try_plan(plan_of(seed, frozenset(kinds.split(","))))


@pytest.mark.parametrize(
    ("mutate", "kinds", "finding"), MUTANTS, ids=[mutant[0].__name__ for mutant in MUTANTS]
)
def test_a_broken_client_is_caught(
    mutate: Callable[[Patch], None], kinds: str, finding: str, monkeypatch: Patch
) -> None:
    """By one of a few seeds, and for the reason it is broken."""
    mutate(monkeypatch)
    caught = (found for trial in trials(kinds) for found, _ in trial.outcome.findings)
    assert finding in caught
