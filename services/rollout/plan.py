"""Where a rollout begins and which step comes next. Pure.

A step is one `helm upgrade`: with nobody released (what belongs to no zone, and the migrations), then one more zone at a
time, at last with no restriction. The release's history remembers, by a mark in its descriptions, which rollout it is
in; the values of its newest step say how far that got.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from services.rollout.errors import ReleaseBusy, ReleaseNotThere

MARK: Final = "kalshi-data rollout"


class Revision(NamedTuple):
    """A revision of the release, as `helm history` has it."""

    number: int
    status: str
    description: str


class Start(NamedTuple):
    """Where a rollout begins.

    revision: the newest of this very rollout, None when it is new. goes_back_to: the newest that worked before it,
    None when history has none any more.
    """

    revision: int | None
    goes_back_to: int | None


class Step(NamedTuple):
    """One upgrade. released: the zones that follow it, None: all and for good. zone: the one that is new in it, empty: none."""

    released: tuple[str, ...] | None
    zone: str = ""


def mark_of(fingerprint: str) -> str:
    """What descriptions of this rollout begin with; another chart or other words are another rollout."""
    return f"{MARK} {fingerprint}:"


def find_start(release: str, history: Sequence[Revision], fingerprint: str) -> Start:
    """Tell a new rollout from one to be continued.

    Raises:
        ReleaseNotThere: it has no history.
        ReleaseBusy: its last operation has not ended.
    """
    if not history:
        raise ReleaseNotThere(f"there is no release {release}; helm install makes it")
    history = sorted(history)
    mark = mark_of(fingerprint)
    worked = [one for one in history if one.status in ("deployed", "superseded")]
    before = [one.number for one in worked if not one.description.startswith(mark)]
    goes_back_to = max(before, default=None)
    last = history[-1]
    if last.status.startswith("pending"):
        behind = max((one.number for one in worked), default=None)
        advice = f"; if nobody is at it: helm rollback {release} {behind}" if behind else ""
        raise ReleaseBusy(f"revision {last.number} of {release} is {last.status}{advice}")
    # A failed upgrade has lost its description; what counts is the newest that worked.
    if worked and worked[-1].description.startswith(mark):
        return Start(worked[-1].number, goes_back_to)
    return Start(None, goes_back_to)


def first_step(zones: Sequence[str], was: Sequence[str] | None, *, is_resumed: bool) -> Step:
    """The step to begin with: nobody released, or, of a rollout that goes on, where it stands, so that it is looked at again.

    Args:
        zones: of the release, in the order in which they follow.
        was: what the newest step of a rollout that goes on has released.
    """
    if not is_resumed:
        return Step(())
    if was is None:
        return Step(None)
    released = tuple(zone for zone in was if zone in zones)
    return Step(released, released[-1] if released else "")


def next_step(zones: Sequence[str], held: Collection[str], done: Step) -> Step | None:
    """The step behind one that ended well; None at the end. Zones in `held` are not released, and then nothing is for good."""
    if done.released is None:
        return None
    for zone in zones:
        if zone not in done.released and zone not in held:
            return Step((*done.released, zone), zone)
    return None if any(zone in held for zone in zones) else Step(None)


def all_steps(zones: Sequence[str], held: Collection[str], first: Step) -> list[Step]:
    """Every step from the first one on."""
    steps, step = [], first
    while True:
        steps.append(step)
        following = next_step(zones, held, step)
        if following is None:
            return steps
        step = following


def is_complete(zones: Sequence[str], step: Step) -> bool:
    """True when nobody is held any more."""
    return step.released is None or set(zones) <= set(step.released)
