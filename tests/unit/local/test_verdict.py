"""The verdict, by what it must refuse."""

import pytest

from libs.marketdata.units import SECOND
from services.local.verdict import (
    ClaimIndex,
    Fact,
    Gap,
    Verdict,
    gaps_of,
    judge,
    loose,
    unplanned,
    until,
)

A1, A2, B1 = Fact("A", 1 * SECOND, 1), Fact("A", 5 * SECOND, 5), Fact("B", 1 * SECOND, 1)
HEARD_A = ClaimIndex([("A", 0, 3 * SECOND)])


def test_equal_multisets_hold() -> None:
    """Nothing missing, nothing extra, whatever the order."""
    verdict = judge("t", [A1, A1, B1], [B1, A1, A1], HEARD_A)
    assert (verdict.missing, verdict.extra, verdict.unsound, verdict.holds) == (0, 0, 0, True)


def test_a_fact_stored_once_too_often_is_extra() -> None:
    """Multiplicity counts: a doubled fact is never allowed."""
    verdict = judge("t", [A1], [A1, A1], HEARD_A)
    assert (verdict.extra, verdict.holds) == (1, False)


def test_a_missing_fact_is_unsound_only_where_somebody_listened() -> None:
    """Outside every claim a loss is a gap; inside one it is a broken promise."""
    assert judge("t", [A1, A2, B1], [A1], HEARD_A).holds
    verdict = judge("t", [A1, A2], [A2], HEARD_A)
    assert (verdict.missing, verdict.unsound, verdict.holds) == (1, 1, False)


def test_of_equal_facts_the_one_that_nothing_stored_is_near_to_is_missing() -> None:
    """Facts without a time of their own are anonymous; where they were seen tells which of them is missing."""
    twice = [Fact("A", 1 * SECOND, "paused"), Fact("A", 5 * SECOND, "paused")]
    assert judge("t", twice, [Fact("A", 2 * SECOND, "paused")], HEARD_A).holds
    assert not judge("t", twice, [Fact("A", 6 * SECOND, "paused")], HEARD_A).holds
    assert not judge("t", twice, [], HEARD_A).holds


def test_claims_of_the_whole_channel_count_for_every_ticker() -> None:
    """Ticker NULL in a claim means all markets of the channel."""
    index = ClaimIndex([(None, 0, 2), ("A", 4, 6)])
    assert [index.heard("A", t) for t in (1, 3, 5, 6)] == [True, False, True, False]
    assert [index.heard("B", t) for t in (1, 5)] == [True, False]
    assert index.of("A") == [(0, 2), (4, 6)]


def test_gaps_are_what_a_life_has_uncovered() -> None:
    """Before the first claim, between claims and after the last one."""
    assert gaps_of(HEARD_A, {"A": (-SECOND, 4 * SECOND), "B": (0, 1)}) == [
        Gap("A", -SECOND, 0), Gap("A", 3 * SECOND, 4 * SECOND), Gap("B", 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "tight"),
    [((10, 40), True), ((12, 48), True), ((2, 42), False), ((31, 80), False), ((60, 61), False)],
)
def test_a_gap_has_a_cause_and_is_at_most_ten_seconds_wider(
    gap: tuple[int, int], tight: bool
) -> None:
    """The cause lasted from second 10 to 38."""
    found = loose(
        [Gap("A", gap[0] * SECOND, gap[1] * SECOND)], lambda _: [(10 * SECOND, 38 * SECOND)]
    )
    assert (found == []) == tight


def test_every_part_can_fail_the_whole() -> None:
    """Tables, gaps, books, archive and faults each keep the verdict from holding."""
    good = Verdict()
    good.compare_books({"A": {}}, {"A": {}})
    good.archive["t"] = (3, 3)
    assert good.holds and good.books_compared == 1
    assert not Verdict(faults=["x"]).holds
    assert not Verdict(archive={"t": (3, 2)}).holds
    assert not Verdict(loose_gaps={"a": [Gap("A", 0, 1)]}).holds
    assert not Verdict(tables=[judge("t", [], [A1], HEARD_A)]).holds
    bad = Verdict()
    bad.compare_books({"A": None}, {"A": {}})
    assert not bad.holds


def test_only_a_new_markets_first_moments_and_a_closing_ones_last_are_planned() -> None:
    """Everything else that nobody heard is a gap; also of a market that was there before, and much later in its life."""
    lives = {"OLD": (None, None), "NEW": (20 * SECOND, 90 * SECOND), "DEAF": (20 * SECOND, None)}
    claims = ClaimIndex([("NEW", 42 * SECOND, 50 * SECOND), ("NEW", 52 * SECOND, 88 * SECOND)])
    planned = [
        Gap("NEW", 20 * SECOND, 42 * SECOND),
        Gap("NEW", 88 * SECOND, 90 * SECOND),
        Gap("DEAF", 20 * SECOND, 80 * SECOND),
    ]
    wrong = [
        Gap("OLD", 20 * SECOND, 22 * SECOND),
        Gap("NEW", 50 * SECOND, 52 * SECOND),
        Gap("NEW", 60 * SECOND, 90 * SECOND),
        Gap("DEAF", 20 * SECOND, 81 * SECOND),
    ]
    assert unplanned([*planned, *wrong], lives, claims) == wrong


def test_facts_until_a_moment() -> None:
    """The moment itself is after it."""
    assert until([A1, A2], A2.moment) == [A1]
    assert until([A1, A2], None) == [A1, A2]
