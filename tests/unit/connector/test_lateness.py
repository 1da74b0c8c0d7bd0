"""Lateness: ever later is a fault, whatever the clocks say; a step, a wild value or a slow drift is none."""

from hypothesis import given, settings
from hypothesis import strategies as st

from libs.marketdata.units import HOUR, SECOND
from services.connector.lateness import LEAST_KEPT, ON_TIME_S, Lateness, Strictness, Turns

LIMIT, PATIENCE = 10 * SECOND, 5 * SECOND
MS = 1_000


def faults(ages: list[int], lateness: Lateness | None = None, step: int = SECOND) -> list[int]:
    """Which samples, a second apart, with these ages end the connection."""
    lateness = lateness or Lateness(LIMIT, PATIENCE)
    found = []
    for number, age in enumerate(ages):
        moment = number * step
        if lateness.sample(moment - age, moment):
            found.append(number)
    return found


@given(
    st.integers(-(10**15), 10**15),
    st.lists(st.integers(0, LIMIT), min_size=1, max_size=200),
)
def test_a_connection_on_time_is_never_given_up(offset: int, hiccups: list[int]) -> None:
    """However far the two clocks are apart, and however frames wander within the limit."""
    assert faults([offset + hiccup for hiccup in hiccups]) == []


@given(st.integers(-(10**15), 10**15), st.integers(100, 2000), st.integers(20 * MS, SECOND))
def test_a_drip_is_found_as_soon_as_it_is_too_late_for_long_enough(
    offset: int, quiet: int, growth: int
) -> None:
    """Age that grows by any rate, after any time of health: found one patience after the limit is passed."""
    ages = [offset + 50 * MS] * quiet
    ages += [ages[0] + growth * second for second in range(1, 60 * SECOND // growth + 20)]
    first = faults(ages)[0]
    passed = next(number for number, age in enumerate(ages) if age > ages[0] + LIMIT)
    assert first == passed + PATIENCE // SECOND


@given(
    st.integers(-(10**15), 10**15),
    st.lists(st.tuples(st.integers(1, 30), st.integers(-(10**13), 10**13)), max_size=30),
)
def test_single_wild_times_neither_end_a_connection_nor_spoil_it(
    offset: int, wild: list[tuple[int, int]]
) -> None:
    """Whatever one frame says, and however often, as long as its neighbours agree with each other."""
    ages = [offset, offset]
    for healthy, by in wild:
        ages += [offset] * (healthy + 1) + [offset + by]
    lateness = Lateness(LIMIT, PATIENCE)
    assert faults(ages, lateness) == []
    assert lateness.late <= max(0, wild[-1][1] if wild else 0)


@given(st.integers(LIMIT + SECOND, 10**13))
def test_a_step_of_the_exchanges_clock_costs_each_connection_once(step: int) -> None:
    """Set back, all that follows is late for ever; the next connection knows no better and stays."""
    old, new = Lateness(LIMIT, PATIENCE), Lateness(LIMIT, PATIENCE)
    assert faults([0] * 20 + [step] * 20, old)[:1] == [25]
    assert faults([step] * 10_000, new) == []
    assert faults([0] * 20 + [-step] * 200) == []


def test_a_backlog_that_empties_in_time_is_no_fault() -> None:
    """As after a moment without network: half a minute late, and four seconds later up to date."""
    assert faults([0] * 10 + [30 * SECOND, 20 * SECOND, 15 * SECOND, 11 * SECOND] + [0] * 10) == []
    assert faults([0] * 10 + [30 * SECOND] * 4 + [0] + [30 * SECOND] * 4 + [0]) == []


def test_what_was_slow_on_our_side_is_excused() -> None:
    """The run begins anew."""
    lateness = Lateness(LIMIT, PATIENCE)
    for second in range(100):
        age = 30 * SECOND if second > 10 else 0
        is_late = lateness.sample(second * SECOND - age, second * SECOND)
        if second < 90:
            lateness.excuse()
        assert is_late is (second >= 95)


def test_few_frames_far_apart_need_three_in_a_row() -> None:
    """A quiet connection has one frame every ten seconds: one or two late answers are no drip."""
    assert faults([0, 0, 0] + [11 * SECOND] * 2 + [0], step=10 * SECOND) == []
    assert faults([0, 0, 0] + [11 * SECOND] * 3, step=10 * SECOND) == [5]


def test_clocks_that_drift_apart_make_no_connection_late() -> None:
    """100 millionths are 8.6 s a day: after a month on one connection nothing is late, and a drip still is found."""
    lateness = Lateness(LIMIT, PATIENCE)
    day = 24 * HOUR
    for moment in range(0, 30 * day, 60 * SECOND):
        assert not lateness.sample(moment - moment // 10_000, moment)
    assert lateness.late <= 2 * LEAST_KEPT // 10_000
    start = 30 * day
    ages = [start // 10_000 + SECOND * second for second in range(40)]
    late = [
        lateness.sample(start + n * SECOND - age, start + n * SECOND) for n, age in enumerate(ages)
    ]
    assert any(late)


@given(st.lists(st.integers(-(10**12), 10**12), max_size=300), st.integers(1, 50))
@settings(max_examples=50)
def test_no_ages_whatever_can_end_connections_faster_than_they_are_judged(
    ages: list[int], limit_s: int
) -> None:
    """A loop of reconnections has a least period: two samples for the least, then the patience."""
    lateness, begun, ends = Lateness(limit_s * SECOND, PATIENCE), 0, []
    for second, age in enumerate(ages):
        if lateness.sample(second * SECOND - age, second * SECOND):
            ends.append(second - begun)
            lateness, begun = Lateness(limit_s * SECOND, PATIENCE), second + 1
    assert all(lasted >= PATIENCE // SECOND + 1 for lasted in ends)


def test_late_connections_are_given_up_one_after_the_other() -> None:
    """The first at once, each other one a while later; a turn nobody took is not saved up."""
    turns = Turns(5.0)
    said = [(second, turns.take(float(second))) for second in (0, 1, 4, 5, 6, 30, 31, 35)]
    assert [second for second, taken in said if taken] == [0, 5, 30, 35]


def limit_s(strictness: Strictness) -> int:
    """How late a frame may come for a part that is so strict, in whole seconds."""
    return next(
        late - 1
        for late in range(1000)
        if faults([0] * 3 + [late * SECOND] * 10, strictness.judge())
    )


def test_a_part_is_the_more_patient_the_more_often_lateness_came_back() -> None:
    """Up to some minutes; failures of another kind change nothing, and a connection on time for long undoes it."""
    strictness = Strictness(10.0, 5.0)
    said = [limit_s(strictness)]
    for _ in range(7):
        strictness.ended(was_late=True, lasted_s=10 * ON_TIME_S)
        strictness.ended(was_late=False, lasted_s=ON_TIME_S - 1)
        said.append(limit_s(strictness))
    strictness.ended(was_late=False, lasted_s=ON_TIME_S)
    assert [*said, limit_s(strictness)] == [10, 20, 40, 80, 160, 320, 320, 320, 10]
