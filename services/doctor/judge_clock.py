"""How far this machine's clock is from the exchange's, with bounds that are proven and not guessed. Pure.

offset = our clock minus the exchange's, microseconds: above zero, ours is ahead. What the exchange wrote at its time t,
asked for at our time a and read at our time b, was written between a and b, so a - t <= offset <= b - t. A Date has whole
seconds: the true t lies in [t, t + 1 s); several of them, at different moments of a second, narrow it. A cache repeats an
old Date, which proves the upper bound only. A frame nobody asked for proves the upper bound only, too.
"""

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from libs.exchange.probe import Dated
from libs.marketdata.units import MILLISECOND, SECOND
from services.doctor.findings import Finding, fail, ok, skipped, warn

CHECK = "clock"
WARN_S, FAIL_S = 1.0, 5.0
"""The exchange takes signatures up to 5 s off and refuses 30 s; half of what is left of the former is spent on the way."""
SYNCHRONISE = (
    "synchronise this machine's clock (chrony or systemd-timesyncd; `timedatectl` shows it):"
    " the exchange refuses signatures that are some seconds off"
)


class Stamp(NamedTuple):
    """A frame's sending_ts_ms as microseconds, when we read it, and when we asked for it (None: unasked)."""

    sent_at: int
    received_at: int
    asked_at: int | None


class Bounds(NamedTuple):
    """The offset lies between low and high, microseconds; None where nothing bounds it. samples: how many say so."""

    low: int | None
    high: int | None
    samples: int

    @property
    def estimate(self) -> int | None:
        """The middle; the upper bound where there is no lower one; None when nothing is known."""
        if self.high is None or self.low is None:
            return self.high
        return (self.low + self.high) // 2


def bounds_of_dates(dated: Iterable[Dated]) -> Bounds:
    """Judge the Date headers of answers."""
    lows: list[int] = []
    highs: list[int] = []
    for answer in dated:
        try:
            date = int(parsedate_to_datetime(answer.date).timestamp()) * SECOND
        except (ValueError, OverflowError):
            continue
        highs.append(answer.answered_at - date)
        if answer.age.strip() in ("", "0"):
            lows.append(answer.sent_at - date - SECOND)
    return _narrowed(lows, highs)


def bounds_of_frames(stamps: Iterable[Stamp]) -> Bounds:
    """Judge the sending times of frames."""
    lows: list[int] = []
    highs: list[int] = []
    for stamp in stamps:
        highs.append(stamp.received_at - stamp.sent_at)
        if stamp.asked_at is not None:
            lows.append(stamp.asked_at - stamp.sent_at - MILLISECOND)
    return _narrowed(lows, highs)


def judge_clock(dates: Bounds, frames: Bounds) -> Finding:
    """Say it in one sentence; frames are exact to milliseconds, so they decide where there are any."""
    best = dates if frames.estimate is None else frames
    estimate = best.estimate
    if estimate is None:
        return skipped(CHECK, "needs: an answer with a Date, or a frame with sending_ts_ms")
    found = f"{_said(estimate)} ({_range(best)}; {_sources(dates, frames)})"
    if abs(estimate) > FAIL_S * SECOND:
        return fail(CHECK, found, SYNCHRONISE)
    if abs(estimate) > WARN_S * SECOND:
        return warn(CHECK, found, SYNCHRONISE)
    if _disagree(dates, frames):
        return warn(
            CHECK,
            f"{found}; the REST Date says otherwise: {_range(dates)}",
            "a cache or proxy between here and the exchange keeps answers or writes Dates; compare from another network",
        )
    return ok(CHECK, found)


def _narrowed(lows: list[int], highs: list[int]) -> Bounds:
    """Return the tightest bounds; where they contradict (a clock moved, a cache hid its age) the upper one is kept."""
    if not highs:
        return Bounds(None, None, 0)
    high = min(highs)
    low = max(lows, default=None)
    if low is not None and low > high:
        low = min(lows)
        if low > high:
            low = None
    return Bounds(low, high, len(highs))


def _disagree(dates: Bounds, frames: Bounds) -> bool:
    """Tell whether no offset fits both, by more than a second."""
    if None in (dates.low, dates.high, frames.low, frames.high):
        return False
    assert dates.low is not None
    assert dates.high is not None
    assert frames.low is not None
    assert frames.high is not None
    return dates.low > frames.high + SECOND or frames.low > dates.high + SECOND


def _said(estimate: int) -> str:
    if abs(estimate) < 100 * MILLISECOND:
        return "this machine's clock agrees with the exchange's"
    word = "ahead of" if estimate > 0 else "behind"
    return f"this machine's clock is {abs(estimate) / SECOND:.2f} s {word} the exchange's"


def _range(bounds: Bounds) -> str:
    if bounds.high is None:
        return "unknown"
    if bounds.low is None:
        return f"at most {bounds.high / SECOND:+.3f} s"
    return f"between {bounds.low / SECOND:+.3f} and {bounds.high / SECOND:+.3f} s"


def _sources(dates: Bounds, frames: Bounds) -> str:
    named = ((dates.samples, "REST dates"), (frames.samples, "websocket times"))
    return ", ".join(f"{samples} {name}" for samples, name in named if samples)
