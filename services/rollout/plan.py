"""Where a rollout begins and which step comes next. Pure.

A step is one `helm upgrade`: with nobody released (what belongs to no zone, and the migrations), then one more zone at a
time, at last with no restriction. The release's history remembers, in the descriptions of its revisions, which rollout it
is in and how far that got. (Its values would not do: helm writes a former revision anew, without what a later one took away.)
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from services.rollout.errors import ReleaseBusy, ReleaseNotThere

MARK: Final = "kalshi-data rollout"
ROLLBACK: Final = re.compile(r"Rollback to (\d+)")
"""What helm describes a rollback by."""


class Revision(NamedTuple):
    """A revision of the release, as `helm history` has it."""

    number: int
    status: str
    description: str


class Step(NamedTuple):
    """One upgrade. released: the zones that follow it, None: all and for good. zone: the one that is new in it, empty: none."""

    released: tuple[str, ...] | None
    zone: str = ""


class Start(NamedTuple):
    """Where a rollout begins.

    revision: the newest of this very rollout, None when it is new. step: the one to begin with: nobody released, or, of a
    rollout that goes on, where it stands, so that it is looked at again. goes_back_to: the newest revision before it that
    worked and held nobody, None when history has none any more.
    """

    revision: int | None
    step: Step
    goes_back_to: int | None


def mark_of(fingerprint: str) -> str:
    """What descriptions of this rollout begin with; another chart or other words are another rollout."""
    return f"{MARK} {fingerprint}:"


def description_of(fingerprint: str, step: Step) -> str:
    """What a step's revision is described by."""
    released = None if step.released is None else list(step.released)
    return f"{mark_of(fingerprint)} {json.dumps(released)}"


def _described(mark: str, description: str) -> Step | None:
    """The step that a description is of, None when it is none of this rollout."""
    if not description.startswith(mark):
        return None
    try:
        released = json.loads(description.removeprefix(mark))
    except ValueError:
        return None
    if released is None:
        return Step(None)
    zones = tuple(str(zone) for zone in released)
    return Step(zones, zones[-1] if zones else "")


def find_start(release: str, history: Sequence[Revision], fingerprint: str) -> Start:
    """Tell a new rollout from one to be continued.

    Raises:
        ReleaseNotThere: it has no history.
        ReleaseBusy: its last operation has not ended.
    """
    if not history:
        raise ReleaseNotThere(f"there is no release {release}; helm install makes it")
    history = _meant(sorted(history))
    mark = mark_of(fingerprint)
    worked = [one for one in history if one.status in ("deployed", "superseded")]
    goes_back_to = max((one.number for one in worked if _is_whole(one, mark)), default=None)
    last = history[-1]
    if last.status.startswith("pending"):
        behind = max((one.number for one in worked), default=None)
        advice = f"; if nobody is at it: helm rollback {release} {behind}" if behind else ""
        raise ReleaseBusy(f"revision {last.number} of {release} is {last.status}{advice}")
    # A failed upgrade has lost its description; what counts is the newest that worked.
    left_at = _described(mark, worked[-1].description) if worked else None
    if left_at is None:
        return Start(None, Step(()), goes_back_to)
    return Start(worked[-1].number, left_at, goes_back_to)


def _meant(history: Sequence[Revision]) -> list[Revision]:
    """The history, oldest first, with each rollback described as what it went back to: it is that revision once more."""
    found: dict[int, Revision] = {}
    for one in history:
        match = ROLLBACK.match(one.description)
        target = found.get(int(match[1])) if match else None
        found[one.number] = one._replace(description=target.description) if target else one
    return list(found.values())


def _is_whole(revision: Revision, mark: str) -> bool:
    """Whether it is none of this rollout and held no zone: of another rollout only the last step is a state to go back to."""
    found = revision.description
    return not found.startswith(mark) and (not found.startswith(MARK) or found.endswith(": null"))


def still_there(step: Step, zones: Collection[str]) -> Step:
    """The step without zones that the release has no more."""
    if step.released is None:
        return step
    released = tuple(zone for zone in step.released if zone in zones)
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
