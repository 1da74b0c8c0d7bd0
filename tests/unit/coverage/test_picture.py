"""The numbers of the plot, and that a PNG of them comes to be."""

from pathlib import Path
from uuid import UUID

from libs.marketdata.units import MINUTE, SECOND
from libs.store.coverage_records import Claim, FactCount, Gatherer, Judged, LagCount
from services.coverage.counted import Coverage, facts_by_set, lag_quantiles, lowest
from services.coverage.heard import channel_heard
from services.coverage.picture import Picture, make_picture
from services.coverage.plot import draw
from services.coverage.show import Names

NOON = 1_795_262_400_000_000
PNG = b"\x89PNG\r\n\x1a\n"


def _coverage() -> Coverage:
    claims = [
        Claim(1, UUID(int=1), "trade", None, NOON, NOON + 3 * MINUTE),
        Claim(2, UUID(int=2), "trade", None, NOON, NOON + MINUTE),
        Claim(2, UUID(int=3), "trade", None, NOON + 2 * MINUTE, NOON + 3 * MINUTE),
    ]
    facts = [
        FactCount("trades", NOON, (1, 2), 10, 0),
        FactCount("orderbook_deltas", NOON, (1, 2), 100, 2),
        FactCount("orderbook_deltas", NOON, (1,), 0, 0),
        FactCount("orderbook_deltas", NOON + 2 * MINUTE, (1,), 50, 0),
    ]
    lags = [
        LagCount(1, "trades", NOON, 0.1, 99, 9.0),
        LagCount(1, "trades", NOON, 8.8, 1, 9.0),
        LagCount(1, "orderbook_deltas", NOON, 0.2, 900, 0.19),
        LagCount(2, "trades", NOON + MINUTE, 0.4, 5, 0.5),
    ]
    heard = channel_heard("trade", claims, [], [1, 2], (NOON - MINUTE, NOON + 9 * MINUTE))
    return Coverage(facts, lags, [], [heard])


def _picture() -> Picture:
    return make_picture(_coverage(), (NOON - MINUTE, NOON + 9 * MINUTE))


def test_minutes_without_facts_have_bars_of_nothing() -> None:
    """Facts of all tables are stacked by who delivered them, larger sets first, on one unbroken axis."""
    picture = _picture()
    noon, minute = NOON / SECOND, 60.0
    assert picture.minutes == [noon, noon + minute, noon + 2 * minute]
    assert picture.stacks == {(1, 2): [110, 0, 0], (1,): [0, 0, 50]}
    assert list(picture.stacks) == [(1, 2), (1,)]
    assert (picture.start, picture.end) == (noon, noon + 3 * minute)


def test_lanes_show_what_was_heard_and_what_was_not() -> None:
    """One for each gatherer and one for production, as starts and lengths in seconds."""
    one, two, production = _picture().lanes
    noon, minute = NOON / SECOND, 60.0
    assert (one.gatherer, one.heard, one.unheard) == (1, [(noon, 3 * minute)], [])
    assert two.heard == [(noon, minute), (noon + 2 * minute, minute)]
    assert (two.unheard, two.share) == ([(noon + minute, minute)], 2 / 3)
    assert (production.gatherer, production.heard, production.share) == (None, one.heard, 1.0)


def test_lags_are_the_99th_percentile_of_all_tables() -> None:
    """In the middle of their minute; never more than the longest lag there was."""
    assert _picture().lags == {
        1: [(NOON / SECOND + 30, 0.2)],
        2: [(NOON / SECOND + 90, 0.4)],
    }
    by_table = lag_quantiles(_coverage().lags, lambda count: (count.gatherer, count.table_name))
    assert by_table[1, "trades"] == (100, 0.1, 0.1, 0.1, 9.0)
    assert by_table[1, "orderbook_deltas"] == (900, 0.19, 0.19, 0.19, 0.19)


def test_totals_leave_out_what_is_nothing() -> None:
    """Sets without a fact and without a late copy are not named; the lowest minute is."""
    found = facts_by_set(_coverage().facts)
    assert found == {
        (1, 2): {"trades": (10, 0), "orderbook_deltas": (100, 2)},
        (1,): {"orderbook_deltas": (50, 0)},
    }
    judged = [Judged(NOON, "trades", 10, 10, 0), Judged(NOON + MINUTE, "trades", 20, 19, 0)]
    assert lowest(judged) == {"trades": (2, 30, 29, judged[1])}


def test_a_png_comes_to_be(tmp_path: Path) -> None:
    """Of the size that is told, also when there is nothing to draw."""
    names = Names([Gatherer(1, "zone-a", "ok"), Gatherer(2, "zone-b", "ok")])
    empty = Coverage([], [], [], [channel_heard("trade", [], [], [1], (NOON, NOON + MINUTE))])
    for picture in (_picture(), make_picture(empty, (NOON, NOON + MINUTE))):
        path = tmp_path / "coverage.png"
        width, height = draw(picture, names, path)
        data = path.read_bytes()
        assert data.startswith(PNG)
        assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (width, height)
        assert width >= 1200 and height >= 600
