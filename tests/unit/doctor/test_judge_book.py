import pytest

from libs.exchange.wire import OrderbookSnapshot, SnapshotBody
from libs.marketdata.rows import Ladder
from services.doctor.judge_book import flipped, judge_orientation, leg_of, telling

YES: Ladder = ((20_000, 500), (30_000, 300))
NO: Ladder = ((40_000, 100), (65_000, 200))


def levels(ladder: Ladder) -> list[tuple[str, str]]:
    return [(f"{price / 100_000:.4f}", f"{size / 100:.2f}") for price, size in ladder]


def book(no: Ladder, yes: Ladder = YES) -> OrderbookSnapshot:
    return OrderbookSnapshot(SnapshotBody("KXA-1", levels(yes), levels(no)), sid=1, seq=1)


OWN, SCALED = book(NO), book(flipped(NO))


def test_the_exchange_as_documented_is_ok() -> None:
    """False gives each side in its own leg, true the yes scale, the default is false."""
    found, crossed = judge_orientation({False: OWN, True: SCALED, None: OWN}, NO, setting=False)
    assert found.state == "ok"
    assert found.found == (
        "use_yes_price false: own leg, true: yes scale, default: own leg; the connector asks for false"
    )
    assert crossed.state == "ok"
    assert crossed.found == "KXA-1: bid 0.3000, ask 0.3500, 2 + 2 levels"


def test_the_announced_flip_of_the_default_is_a_warning() -> None:
    """Ours says which it wants, so nothing breaks."""
    found, crossed = judge_orientation({False: OWN, True: SCALED, None: SCALED}, NO, setting=False)
    assert found.state == "warn"
    assert "the default has changed" in found.found
    assert crossed.state == "ok"


@pytest.mark.parametrize(("without", "with_it"), [(SCALED, SCALED), (OWN, OWN), (SCALED, OWN)])
def test_a_flag_that_is_not_honoured_is_a_fault(
    without: OrderbookSnapshot, with_it: OrderbookSnapshot
) -> None:
    """Prices would be stored in the wrong leg: do not capture."""
    found, _ = judge_orientation({False: without, True: with_it, None: without}, NO, setting=False)
    assert found.state == "fail"
    assert "do not capture" in found.advice


def test_a_book_read_in_the_wrong_leg_is_crossed() -> None:
    """Bids of both legs that cost more than a dollar together."""
    high: Ladder = ((80_000, 100), (90_000, 100))
    low: Ladder = ((5_000, 100),)
    wrong = book(flipped(low), yes=high)
    _, crossed = judge_orientation({False: wrong, True: wrong, None: None}, low, setting=False)
    assert crossed.state == "fail"
    assert "crossed" in crossed.found


def test_a_setting_of_true_is_read_as_such() -> None:
    """The yes scale is turned back before the book is looked at."""
    _, crossed = judge_orientation({False: OWN, True: SCALED, None: OWN}, NO, setting=True)
    assert crossed.found == "KXA-1: bid 0.3000, ask 0.3500, 2 + 2 levels"


def test_a_rest_book_some_seconds_old_still_tells() -> None:
    """Half of its levels moved; what is left agrees with one leg only."""
    old: Ladder = ((40_000, 100), (55_000, 900))
    assert leg_of(YES, NO, old) == "own leg"
    assert leg_of(YES, flipped(NO), old) == "yes scale"


def test_without_common_levels_the_crossing_tells() -> None:
    """A reading that would cross the book cannot be the right one."""
    no: Ladder = ((10_000, 100),)
    assert leg_of(((80_000, 100),), no, ()) == "own leg"
    assert leg_of(((80_000, 100),), flipped(no), ()) == "yes scale"


def test_a_book_says_how_well_it_tells() -> None:
    """A mirror of itself, an empty side or a crossed book is no evidence; a deep one needs nothing beside it."""
    assert telling(YES, ((50_000, 100),)) == 0
    assert telling(YES, ()) == 0
    assert telling((), NO) == 0
    assert telling(((90_000, 1),), ((20_000, 1),)) == 0
    assert telling(YES, NO) == 1
    assert telling(YES, ((1_000, 100), *NO)) == 2
    assert leg_of(((20_000, 1),), ((50_000, 100),), ((50_000, 100),)) == "unclear"


def test_a_deep_book_needs_no_rest_book() -> None:
    """Whatever REST said seconds ago, a reading that crosses the book is wrong."""
    deep: Ladder = ((1_000, 100), *NO)
    misleading = flipped(deep)
    assert leg_of(YES, deep, misleading) == "own leg"
    assert leg_of(YES, flipped(deep), misleading) == "yes scale"


def test_prices_that_agree_by_chance_prove_nothing() -> None:
    """Around 50 cents both readings share prices; only whole levels count."""
    no: Ladder = ((48_000, 100), (51_000, 200))
    assert leg_of(((40_000, 1),), no, ((49_000, 700), (52_000, 900))) == "unclear"


def test_a_missing_or_unclear_book_is_a_warning_and_not_a_verdict() -> None:
    """Try again; nothing is claimed."""
    found, crossed = judge_orientation({False: None, True: None, None: None}, NO, setting=False)
    assert found.state == "warn"
    assert "false: no book" in found.found
    assert crossed.state == "skipped"


def test_a_book_with_a_price_nobody_can_read_is_a_fault() -> None:
    """It names the field."""
    bad = OrderbookSnapshot(SnapshotBody("KXA-1", [("x", "1.00")], None), sid=1, seq=1)
    found = judge_orientation({False: bad}, NO, setting=False)
    assert [finding.state for finding in found] == ["fail"]
    assert "yes_dollars_fp" in found[0].found
