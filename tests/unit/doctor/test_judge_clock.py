from email.utils import formatdate

import pytest

from libs.exchange.probe import Dated
from libs.marketdata.units import MILLISECOND, SECOND
from services.doctor.judge_clock import (
    Bounds,
    Stamp,
    bounds_of_dates,
    bounds_of_frames,
    judge_clock,
)

T = 1_787_186_161 * SECOND
NOTHING = Bounds(None, None, 0)


def dated(true_time: int, offset: int, *, way: int = 20_000, age: str = "") -> Dated:
    """An answer written at `true_time` by the exchange's clock, with `way` microseconds each way."""
    date = formatdate(true_time // SECOND, usegmt=True)
    return Dated("/exchange/status", 200, date, age, true_time + offset - way, true_time + offset + way)  # fmt: skip


@pytest.mark.parametrize("offset", [0, 3 * SECOND, -7 * SECOND, 400_000])
def test_dates_at_different_moments_of_a_second_narrow_the_offset(offset: int) -> None:
    """The true offset is inside, and ten dates over a second leave a tenth of it and the way."""
    found = bounds_of_dates([dated(T + step * 100_000, offset) for step in range(10)])
    assert found.low is not None
    assert found.high is not None
    assert found.low <= offset <= found.high
    assert found.high - found.low <= 100_000 + 2 * 20_000
    assert found.samples == 10


def test_one_date_knows_the_second_and_no_more() -> None:
    """A single whole-second Date leaves a second and the way there and back."""
    found = bounds_of_dates([dated(T + 500_000, 0)])
    assert (found.low, found.high) == (-520_000, 520_000)


def test_a_cached_date_bounds_from_above_only() -> None:
    """An answer with an Age was written long ago: it must not make our clock look ahead."""
    old = dated(T, 0)
    cached = old._replace(age="12", sent_at=old.sent_at + 12 * SECOND, answered_at=old.answered_at + 12 * SECOND)  # fmt: skip
    fresh = dated(T + 13 * SECOND + 500_000, 0)
    assert bounds_of_dates([cached, fresh]) == bounds_of_dates([fresh])._replace(samples=2)
    assert bounds_of_dates([cached]).low is None


def test_a_cache_that_hides_its_age_cannot_contradict_a_fresh_date() -> None:
    """Where lower and upper bounds exclude each other the upper one stands."""
    old = dated(T, 0)
    hidden = old._replace(sent_at=old.sent_at + 12 * SECOND, answered_at=old.answered_at + 12 * SECOND)  # fmt: skip
    fresh = dated(T + 13 * SECOND + 500_000, 0)
    found = bounds_of_dates([hidden, fresh])
    assert found.high == 520_000
    assert found.low == -520_000


@pytest.mark.parametrize("text", ["", "yesterday", "Sat, 99 Foo 2026 00:00:00 GMT"])
def test_a_date_nobody_can_read_says_nothing(text: str) -> None:
    """It is left out, and nothing breaks."""
    assert bounds_of_dates([Dated("/", 200, text, "", T, T)]) == NOTHING


def test_answers_bound_from_both_sides_and_pushed_frames_from_one() -> None:
    """What we asked for was sent after we asked; any frame was sent before it came."""
    offset, sent = 250 * MILLISECOND, T
    asked = Stamp(sent, sent + offset + 30_000, sent + offset - 40_000)
    pushed = Stamp(sent, sent + offset + 5_000, None)
    found = bounds_of_frames([asked, pushed])
    assert found == Bounds(offset - 41_000, offset + 5_000, 2)


@pytest.mark.parametrize(
    ("offset_s", "state", "words"),
    [
        (0.0, "ok", "agrees with"),
        (0.6, "ok", "0.60 s ahead of"),
        (1.4, "warn", "1.40 s ahead of"),
        (-1.4, "warn", "1.40 s behind"),
        (7.0, "fail", "7.00 s ahead of"),
        (-60.0, "fail", "60.00 s behind"),
    ],
)
def test_the_verdict_follows_the_size(offset_s: float, state: str, words: str) -> None:
    """Above one second is a warning, above five a fault, either way; advice comes with both."""
    offset = int(offset_s * SECOND)
    finding = judge_clock(NOTHING, Bounds(offset - 10_000, offset + 10_000, 4))
    assert finding.state == state
    assert words in finding.found
    assert "4 websocket times" in finding.found
    assert ("synchronise" in finding.advice) == (state != "ok")


def test_without_any_time_nothing_is_claimed() -> None:
    """No Date, no frame: skipped, not ok."""
    assert judge_clock(NOTHING, NOTHING).state == "skipped"


def test_dates_decide_alone_and_frames_decide_together() -> None:
    """Whole seconds do when the websocket is closed; where frames speak, they are believed."""
    late = Bounds(-8 * SECOND, -7 * SECOND, 5)
    exact = Bounds(-10_000, 10_000, 3)
    assert judge_clock(late, NOTHING).state == "fail"
    both = judge_clock(late, exact)
    assert both.state == "warn"
    assert "REST Date says otherwise: between -8.000 and -7.000 s" in both.found
    assert "cache or proxy" in both.advice
