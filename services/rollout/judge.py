"""Whether a zone is sound: what its status says, held against what a step demands of it. Pure.

A gap that ended after the step began never heals: stop. Everything else may still come: wait, and the time for which the
zone has been sound begins anew with every doubt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from services.rollout.errors import AnswerUnreadable

NOBODYS_FAULT: Final = frozenset({"exchange_paused", "not_subscribed"})
"""Causes of gaps that no version of ours makes or mends: the exchange's pauses, and a market's first moments."""

FULL: Final = 0.95
"""Part of a zone's storage from which on it counts as full: connectors that held rows back above 1.0 go on doing so until
there is less than this."""


class Reading(NamedTuple):
    """A zone's status. Times: microseconds by the database's clock; lag: milliseconds, None when nothing was heard of late.

    gap_at: when the newest gap of any trouble ended, None when there is none; gap: its cause in words.
    storage: bytes by `storage_bytes_max`; 0.0 without a limit.
    """

    now: int
    total: int
    live: int
    moving: int
    unassigned: int
    lag_p99_ms: float | None
    gap_at: int | None
    gap: str
    storage: float = 0.0

    @property
    def is_full(self) -> bool:
        """True when its connectors may hold rows back: on disks that go with their pods."""
        return self.storage >= FULL


class Verdict(NamedTuple):
    """What to do: go on, look again, or stop; why: in words, also while it is waited."""

    then: Literal["go on", "wait", "stop"]
    why: str


@dataclass(frozen=True, slots=True)
class Demands:
    """What a zone must hold to, and for how long.

    Attributes:
        sound_s: seconds without any doubt. within_s: seconds from the first look until it must have been sound so long.
    """

    sound_s: float = 60.0
    lag_p99_ms_max: float = 5_000.0
    within_s: float = 900.0


def read_status(document: Mapping[str, Any], zone: str) -> Reading:
    """Read what `kalshi-data status --json` says of a zone.

    Raises:
        AnswerUnreadable: the database is away, or an older version answers, which does not say all of this.
    """
    entry = document.get(zone)
    if not isinstance(entry, Mapping):
        raise AnswerUnreadable(f"status says nothing of zone {zone}")
    if "error" in entry:
        raise AnswerUnreadable(f"its database is away: {entry['error']}")
    try:
        slots = entry["slots"]
        gaps = [gap for gap in entry["gaps"]["newest"] if gap["reason"] not in NOBODYS_FAULT]
        newest = max(gaps, key=lambda gap: int(gap["ends_at"]), default=None)
        words = () if newest is None else (newest["reason"], newest["slot"], newest["detail"])
        return Reading(
            now=int(entry["now"]),
            total=int(slots["total"]),
            live=int(slots["live"]),
            moving=int(slots["moving"]),
            unassigned=int(slots["unassigned"]),
            lag_p99_ms=entry["lag_ms"]["p99"],
            gap_at=None if newest is None else int(newest["ends_at"]),
            gap=" ".join(str(word) for word in words if word),
            storage=float((entry.get("storage") or {}).get("share") or 0.0),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerUnreadable(f"status of zone {zone} is of another version: {error!r}") from error


def doubts(reading: Reading, demands: Demands) -> list[str]:
    """Say what is not as it should be yet; empty: nothing."""
    found = []
    if reading.live < reading.total or reading.unassigned:
        found.append(f"{reading.live} of {reading.total} slots live")
    if reading.moving:
        found.append(f"{reading.moving} slots moving")
    if reading.lag_p99_ms is not None and reading.lag_p99_ms >= demands.lag_p99_ms_max:
        found.append(f"lag p99 {reading.lag_p99_ms / 1000:.1f} s")
    return found


def troubles(reading: Reading, demands: Demands) -> list[str]:
    """Say what would be laid at a step's door if it began now: doubts, and a gap that is not long over."""
    found = doubts(reading, demands)
    if (
        reading.gap_at is not None
        and (ago := (reading.now - reading.gap_at) / 1e6) < demands.sound_s
    ):
        found.append(f"a gap until {max(ago, 0):.0f} s ago")
    return found


class Watch:
    """Looks at one zone after a step, reading by reading.

    Args:
        since: when the step began, microseconds by the database's clock; None: it could not be asked, and is reckoned
            back from the first reading, because this machine's clock may be another.
        step_at: the same, seconds of a clock that never goes back.
    """

    def __init__(
        self, zone: str, since: int | None, demands: Demands, step_at: float = 0.0
    ) -> None:
        self._zone = zone
        self._since = since
        self._demands = demands
        self._step_at = step_at
        self._began: float | None = None
        self._sound_since: float | None = None

    def see(self, reading: Reading | str, now: float) -> Verdict:
        """Judge one look; a text says why there is no reading. now: seconds of a clock that never goes back."""
        self._began = now if self._began is None else self._began
        if isinstance(reading, str):
            found = [reading]
        else:
            if self._since is None:
                self._since = reading.now - int((now - self._step_at) * 1e6)
            if reading.gap_at is not None and reading.gap_at > self._since:
                later = (reading.gap_at - self._since) / 1e6
                return Verdict(
                    "stop",
                    f"zone {self._zone} has a gap {later:.0f} s into the step: {reading.gap}",
                )
            found = doubts(reading, self._demands)
        if found:
            self._sound_since = None
            if now - self._began >= self._demands.within_s:
                why = f"zone {self._zone} is not sound after {self._demands.within_s:.0f} s: {', '.join(found)}"
                return Verdict("stop", why)
            return Verdict("wait", ", ".join(found))
        self._sound_since = now if self._sound_since is None else self._sound_since
        sound = now - self._sound_since
        if sound >= self._demands.sound_s:
            return Verdict("go on", f"sound for {sound:.0f} s")
        return Verdict("wait", f"sound for {sound:.0f} of {self._demands.sound_s:.0f} s")
