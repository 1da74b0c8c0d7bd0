"""The figures scenarios are judged by, by what they must not overlook."""

from libs.marketdata.rebuild import BookDelta
from libs.marketdata.units import SECOND
from services.local.stored import Stored
from services.local.truth import Market, Truth
from services.local.verdict import ClaimIndex, Verdict
from tests.soak.evidence import AT_CLOSE, Evidence, longest_s
from tests.soak.spool_full import beyond_s
from tests.soak.storm import most_at_once

S = SECOND


def delta(at: int, size: int = 1) -> BookDelta:
    return BookDelta(at, None, True, 50_000, size)


def evidence(*claims: tuple[int, int], held: tuple[int, ...] = (), closed_at: int | None = None) -> Evidence:  # fmt: skip
    """One market created at 0 with a delta at 10, 20 and 30 s; the run ends at 40 s."""
    market = Market(0, {}, closed_at, [delta(10 * S), delta(20 * S), delta(30 * S)])
    stored = Stored(deltas={"A": [delta(at) for at in held]})
    index = ClaimIndex([("A", start, end) for start, end in claims])
    return Evidence(Verdict(), Truth(markets={"A": market}), stored, index, 40 * S)


def test_a_hole_between_claims_and_after_the_last_is_a_gap_the_time_before_the_first_is_none() -> (
    None
):
    """A market is not subscribed before it is found; from then on every hole counts."""
    found = evidence((5 * S, 12 * S), (18 * S, 36 * S))
    assert found.gaps((0, 40 * S)) == [("A", 12 * S, 18 * S), ("A", 36 * S, 40 * S)]
    assert found.gaps((13 * S, 17 * S)) == [("A", 13 * S, 17 * S)]
    assert found.gaps((19 * S, 30 * S)) == []
    assert longest_s(found.gaps((0, 40 * S))) == 6.0


def test_a_market_that_closes_need_not_be_proved_to_its_last_moment() -> None:
    """A pause between two probes and the end margin are no gap; anything wider is."""
    proved = 40 * S - AT_CLOSE
    assert evidence((5 * S, proved), closed_at=40 * S).gaps((0, 40 * S)) == []
    wider = evidence((5 * S, proved - S), closed_at=40 * S).gaps((0, 40 * S))
    assert wider == [("A", proved - S, proved)]


def test_what_was_published_while_the_market_was_known_and_is_not_stored_is_missing() -> None:
    """Counted once each, only within the span, only from the first hearing on."""
    found = evidence((15 * S, 40 * S), held=(30 * S,))
    assert [fact.moment for fact in found.missing((0, 40 * S))] == [20 * S]
    assert found.missing((21 * S, 40 * S)) == []
    assert evidence((5 * S, 40 * S), held=(10 * S, 20 * S, 30 * S)).missing((0, 40 * S)) == []


def test_a_gap_is_wider_than_what_was_dropped_by_what_the_drops_leave_of_it() -> None:
    """Drops outside it do not help."""
    assert beyond_s((0, 10 * S), [(2 * S, 9 * S), (20 * S, 30 * S)]) == 3.0
    assert beyond_s((0, 10 * S), []) == 10.0


def test_connections_at_once_are_those_opened_and_not_closed() -> None:
    """In the journal's order, which is the exchange's own."""
    kinds = ("opened", "opened", "closed", "snapshot", "opened", "opened", "closed", "closed")
    assert most_at_once([{"kind": kind} for kind in kinds]) == 3
