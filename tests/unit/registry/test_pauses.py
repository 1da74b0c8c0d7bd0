"""Known pauses: when they begin and end by the exchange's word and by its schedule."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.rows import EXCHANGE_CHANNELS
from libs.marketdata.units import format_rfc3339
from services.registry.pauses import (
    RECENT,
    Known,
    Said,
    Step,
    Window,
    read_windows,
    rows,
    step,
)
from tests.unit.registry.factories import NOW, SECOND

HOUR = 3600 * SECOND


def active(at: int) -> Said:
    """Nothing is paused."""
    return Said(True, True, None, at)


def closed(at: int, resume_at: int | None = None) -> Said:
    """Trading is paused."""
    return Said(True, False, resume_at, at)


def play(known: Known, *answers: tuple[int, Said | None]) -> list[Step]:
    """Take answers in order; return every step that began or ended something."""
    found = []
    for now, said in answers:
        taken = step(known, said, now)
        known = taken.known
        if taken.began is not None or taken.ended is not None:
            found.append(taken)
    return found


def test_a_pause_lies_between_the_answers_that_deny_it() -> None:
    """From the last active answer to the next one: a row at the beginning, one with the end, on every channel."""
    began, ended = play(
        Known(),
        (NOW, active(NOW)),
        (NOW + 15, closed(NOW + 15, NOW + HOUR)),
        (NOW + 30, closed(NOW + 30)),
        (NOW + 45, active(NOW + 45)),
    )
    first, last = rows(began, NOW + 15), rows(ended, NOW + 45)
    assert {row.channel for row in first} == {row.channel for row in last} == EXCHANGE_CHANNELS
    assert {(r.reason, r.from_ts, r.to_ts, r.slot, r.ticker) for r in first} == {
        ("exchange_paused", NOW, None, "", None)
    }
    assert {(r.from_ts, r.to_ts, r.received_to) for r in last} == {(NOW, NOW + 45, NOW + 45)}
    assert first[0].detail == f"trading is paused; expected back at {format_rfc3339(NOW + HOUR)}"
    assert last[0].detail == "trading is paused"


def test_what_nobody_saw_is_not_claimed() -> None:
    """An old active answer is no beginning, a hole before the end is filled by the exchange's own estimate."""
    old = NOW - RECENT - 1
    (began,) = play(Known(), (old, active(old)), (NOW, closed(NOW)))
    assert began.began is not None and began.began.began_at == NOW
    late = NOW + HOUR
    for resume_at, end in ((NOW + 60 * SECOND, NOW + 60 * SECOND), (late + 1, late), (None, late)):
        _, ended = play(Known(), (NOW, closed(NOW, resume_at)), (late, active(late)))
        assert ended.ended is not None and (ended.ended.at, ended.ended.is_exact) == (end, False)
        assert all(row.detail.endswith("its end was not observed") for row in rows(ended, late))


def test_a_planned_window_is_a_pause_although_nothing_is_answered() -> None:
    """Its two ends are those of the schedule; the exchange need not answer at all."""
    window = Window(NOW, NOW + 60 * SECOND)
    began, ended = play(
        Known(windows=(window,)),
        (NOW - SECOND, active(NOW - SECOND)),
        (NOW + SECOND, None),
        (NOW + 2 * SECOND, None),
        (NOW + 61 * SECOND, None),
    )
    assert began.began is not None and (began.began.why, began.began.began_at) == ("window", NOW)
    assert began.began.resume_at == window.end
    assert ended.ended is not None and (ended.ended.at, ended.ended.is_exact) == (window.end, True)


def test_the_exchanges_word_outlasts_and_shortens_the_window() -> None:
    """Paused beyond the window: until the exchange goes on. On again inside the window: over, and not begun again."""
    known = Known(windows=(Window(NOW, NOW + 60 * SECOND),))
    _, ended = play(
        known,
        (NOW + SECOND, closed(NOW + SECOND)),
        (NOW + 65 * SECOND, closed(NOW + 65 * SECOND)),
        (NOW + 70 * SECOND, None),
        (NOW + 80 * SECOND, active(NOW + 80 * SECOND)),
    )
    assert ended.ended is not None and ended.ended.at == NOW + 80 * SECOND
    _, ended = play(
        known,
        (NOW + SECOND, closed(NOW + SECOND)),
        (NOW + 30 * SECOND, active(NOW + 30 * SECOND)),
        (NOW + 40 * SECOND, active(NOW + 40 * SECOND)),
        (NOW + 50 * SECOND, None),
    )
    assert ended.ended is not None and ended.ended.at == NOW + 30 * SECOND


def test_a_pause_found_again_after_hours_is_another() -> None:
    """A registry that was away for long ends the old one and begins anew."""
    later = NOW + 7 * HOUR
    found = play(Known(), (NOW, closed(NOW, NOW + SECOND)), (later, closed(later)))
    assert len(found) == 2
    assert found[1].ended is not None and found[1].ended.at == NOW + SECOND
    assert found[1].began is not None and found[1].began.began_at == later
    assert len(rows(found[1], later)) == 2 * len(EXCHANGE_CHANNELS)


def test_windows_are_read_from_what_the_schedule_says() -> None:
    """In order, without what is no window; the next one is the first that has not begun."""
    times = [format_rfc3339(NOW + n * HOUR) for n in range(5)]
    items: list[Any] = [
        {"start_datetime": times[3], "end_datetime": times[4]},
        {"start_datetime": times[1], "end_datetime": times[2]},
        {"start_datetime": times[2], "end_datetime": times[1]},
        {"start_datetime": "soon", "end_datetime": times[1]}, {}, None,
    ]  # fmt: skip
    windows = read_windows({"schedule": {"maintenance_windows": items}})
    assert windows == (Window(NOW + HOUR, NOW + 2 * HOUR), Window(NOW + 3 * HOUR, NOW + 4 * HOUR))
    assert Known(windows=windows).coming(NOW + HOUR) == windows[1]
    for empty in ({}, {"schedule": None}, {"schedule": {"maintenance_windows": None}}):
        assert read_windows(empty) == ()


@given(
    st.lists(st.tuples(st.integers(1, 100), st.sampled_from(["active", "closed", "none"])), max_size=40),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 400)), max_size=3),
)  # fmt: skip
def test_pauses_never_overlap_and_are_remembered_whole(
    answers: list[tuple[int, str]], planned: list[tuple[int, int]]
) -> None:
    """Whatever is answered when: beginning, end, beginning, in this order and of the same pause, also over restarts."""
    windows = sorted(Window(NOW + at * SECOND, NOW + (at + long) * SECOND) for at, long in planned)
    known, now, since, until = Known(windows=tuple(windows)), NOW, None, 0
    for wait, word in answers:
        now += wait * SECOND
        said = {"active": active(now), "closed": closed(now), "none": None}[word]
        taken = step(Known.load(known.dump()) if wait % 2 else known, said, now)
        if taken.ended is not None:
            assert since == taken.ended.pause.began_at <= taken.ended.at <= now
            since, until = None, taken.ended.at
        if taken.began is not None:
            assert since is None and taken.began.began_at <= now
            since = taken.began.began_at
        known = taken.known
        assert (known.pause is not None) == (since is not None)
        if word == "closed":
            assert known.pause is not None
    assert until <= now
