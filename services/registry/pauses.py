"""When the exchange is known to pause: by its own word, or because a maintenance window of its schedule is on. Pure.

A pause begins with the last answer that said otherwise and ends with the first that does again; between, silence is
explained. Inside a planned window the schedule counts until the exchange was seen to pause and to go on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

from libs.marketdata.rows import EXCHANGE_CHANNELS, GapRow, gap
from libs.marketdata.units import SECOND, format_rfc3339
from services.registry.listing import time_of

RECENT: Final = 60 * SECOND
"""Answers further apart than this, microseconds, do not tell what was between them."""
SAME: Final = 6 * 3600 * SECOND
"""A pause found again after more time than this, microseconds, is another one."""
EXCHANGE, TRADING, WINDOW = "exchange", "trading", "window"
_WORDS = {
    EXCHANGE: "the exchange is paused",
    TRADING: "trading is paused",
    WINDOW: "a maintenance window of the schedule",
}


class Window(NamedTuple):
    """A planned maintenance, microseconds."""

    begin: int
    end: int


class Said(NamedTuple):
    """One answer about the exchange's state; resume_at is its own estimate. Microseconds."""

    exchange_active: bool | None
    trading_active: bool | None
    resume_at: int | None
    requested_at: int

    @property
    def pause(self) -> str:
        """What is paused; empty when nothing is, as far as it says."""
        if self.exchange_active is False:
            return EXCHANGE
        return TRADING if self.trading_active is False else ""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that is on. seen_at: the last moment it was known to be; resume_at: expected end. Microseconds."""

    why: str
    began_at: int
    seen_at: int
    resume_at: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of pauses.

    Attributes:
        active_at: when an answer last said that nothing is paused. over: begin of the window that ended before its time.
    """

    pause: Pause | None = None
    windows: tuple[Window, ...] = ()
    active_at: int | None = None
    over: int | None = None

    def window(self, now: int) -> Window | None:
        """Return the planned window that is on."""
        on = (w for w in self.windows if w.begin <= now < w.end and w.begin != self.over)
        return next(on, None)

    def coming(self, now: int) -> Window | None:
        """Return the next planned window that has not begun."""
        return next((window for window in self.windows if window.begin > now), None)

    def dump(self) -> dict[str, Any]:
        """Return what is worth remembering, as JSON can say it."""
        return {
            "pause": asdict(self.pause) if self.pause is not None else None,
            "windows": self.windows,
            "over": self.over,
        }

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> "Known":
        """Read what dump() gave."""
        pause = value["pause"]
        return cls(
            pause=Pause(**pause) if pause is not None else None,
            windows=tuple(Window(*pair) for pair in value["windows"]),
            over=value["over"],
        )


class Ended(NamedTuple):
    """A pause that is over at `at`, microseconds; is_exact: its end was observed."""

    pause: Pause
    at: int
    is_exact: bool


class Step(NamedTuple):
    """What is known now, and what has ended and begun by it."""

    known: Known
    ended: Ended | None = None
    began: Pause | None = None


def read_windows(schedule: Mapping[str, Any]) -> tuple[Window, ...]:
    """Read the maintenance windows of GET /exchange/schedule, earliest first; what is no window is left out."""
    inner = schedule.get("schedule")
    listed = inner.get("maintenance_windows") if isinstance(inner, Mapping) else None
    found = []
    for item in listed if isinstance(listed, list) else ():
        if not isinstance(item, Mapping):
            continue
        begin, end = time_of(item, "start_datetime"), time_of(item, "end_datetime")
        if begin is not None and end is not None and begin < end:
            found.append(Window(begin, end))
    return tuple(sorted(found))


def step(known: Known, said: Said | None, now: int) -> Step:
    """Take an answer of the exchange, or that there was none."""
    pause, window = known.pause, known.window(now)
    if said is None:
        if pause is not None and pause.why != WINDOW:
            return Step(known)
        return _move(known, WINDOW if window else "", window, None, now)
    if not said.pause:
        if pause is not None and pause.why != WINDOW and window is not None:
            known, window = replace(known, over=window.begin), None
        moved = _move(known, WINDOW if window else "", window, said, now)
        return moved._replace(known=replace(moved.known, active_at=said.requested_at))
    return _move(known, said.pause, window, said, now)


def _move(known: Known, why: str, window: Window | None, said: Said | None, now: int) -> Step:
    old = known.pause
    if not why:
        ended = _ended(old, said, now) if old is not None else None
        return Step(replace(known, pause=None), ended)
    seen_at = said.requested_at if said is not None else now
    resume_at = said.resume_at if said is not None else None
    if resume_at is None and window is not None:
        resume_at = window.end
    if old is not None and seen_at - old.seen_at <= SAME:
        new = replace(old, why=why, seen_at=seen_at, resume_at=resume_at)
        return Step(replace(known, pause=new))
    new = Pause(why, _beginning(known, window, said), seen_at, resume_at)
    ended = _ended(old, said, now) if old is not None else None
    return Step(replace(known, pause=new), ended, new)


def _beginning(known: Known, window: Window | None, said: Said | None) -> int:
    """Return when a pause began: at the latest when it was seen, and not before the exchange was last seen active."""
    starts = [window.begin] if window is not None else []
    if said is not None and said.pause:
        active_at = known.active_at
        is_near = active_at is not None and said.requested_at - active_at <= RECENT
        starts.append(active_at if active_at is not None and is_near else said.requested_at)
    return min(starts)


def _ended(old: Pause, said: Said | None, now: int) -> Ended:
    """Return when a pause ended; where nobody looked, its own estimate counts if it can be true."""
    latest = said.requested_at if said is not None else now
    if old.why != WINDOW and latest - old.seen_at <= RECENT:
        return Ended(old, latest, True)
    if old.resume_at is not None and old.seen_at <= old.resume_at <= latest:
        return Ended(old, old.resume_at, old.why == WINDOW)
    return Ended(old, latest, latest - old.seen_at <= RECENT)


def rows(of: Step, now: int) -> tuple[GapRow, ...]:
    """Name the cause of silence on every channel: a row where a pause begins, a whole one where it ends."""
    found: list[GapRow] = []
    if of.ended is not None:
        pause, at, is_exact = of.ended
        detail = _WORDS[pause.why] + ("" if is_exact else "; its end was not observed")
        found += _rows(now, pause.began_at, at, detail)
    if of.began is not None:
        back = of.began.resume_at
        expected = f"; expected back at {format_rfc3339(back)}" if back is not None else ""
        found += _rows(now, of.began.began_at, None, _WORDS[of.began.why] + expected)
    return tuple(found)


def _rows(now: int, begin: int, end: int | None, detail: str) -> Iterable[GapRow]:
    return (
        gap(
            now, channel, "exchange_paused", detail=detail,
            from_ts=begin, to_ts=end, received_from=begin, received_to=now if end is None else end,
        )
        for channel in sorted(EXCHANGE_CHANNELS)
    )  # fmt: skip
