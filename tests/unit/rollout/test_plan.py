"""Where a rollout begins, which steps it has, when a zone is sound, and what may be removed."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata.units import SECOND
from services.rollout.errors import AnswerUnreadable, ReleaseBusy, ReleaseNotThere
from services.rollout.judge import Demands, Reading, Watch, read_status, troubles
from services.rollout.plan import (
    Revision,
    Step,
    all_steps,
    description_of,
    find_start,
    is_complete,
    mark_of,
    next_step,
    still_there,
)
from services.rollout.prune import Map, may_go, read_maps, used_maps

NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1, max_size=6)
DEMANDS = Demands(sound_s=60, lag_p99_ms_max=5_000, within_s=600)
BEGAN = 1_000 * SECOND


@given(zones=NAMES, held=st.sets(st.sampled_from("abcdefgh")))
def test_each_step_releases_one_more_zone(zones: list[str], held: set[str]) -> None:
    """From nobody on; a held zone never; for good only when nobody is held; and it ends."""
    steps = all_steps(zones, held, Step(()))
    assert steps[0] == Step(())
    for before, after in itertools.pairwise(steps):
        assert before.released is not None
        if after.released is None:
            assert set(before.released) == set(zones)
        else:
            assert after.released == (*before.released, after.zone)
    released = [step.zone for step in steps if step.zone]
    assert released == [zone for zone in zones if zone not in held]
    is_for_good = steps[-1].released is None
    assert is_for_good == (not held & set(zones))
    assert is_complete(zones, steps[-1]) == is_for_good


@given(zones=NAMES, done=st.integers(0, 6))
def test_a_second_run_goes_on_where_the_first_was_left(zones: list[str], done: int) -> None:
    """It looks at the last zone again, releases no zone twice, and those that were held stay so until their turn."""
    whole = all_steps(zones, (), Step(()))
    left_at = whole[min(done, len(whole) - 1)]
    history = [(1, "superseded", "x"), (2, "deployed", description_of("f00", left_at))]
    start = find_start("kd", [Revision(*one) for one in history], "f00")
    assert tuple(start) == (2, left_at, 1)
    assert all_steps(zones, (), still_there(start.step, zones)) == whole[whole.index(left_at) :]


def test_a_zone_that_is_gone_is_not_released_again() -> None:
    """What an older description names may not be there any more."""
    assert still_there(Step(("a", "b"), "b"), ["a", "c"]) == Step(("a",), "a")
    assert still_there(Step(("b",), "b"), ["a", "c"]) == Step(())
    assert next_step(["a", "c"], (), Step(("a",), "a")) == Step(("a", "c"), "c")


NONE, OF_A = Step(()), Step(("a",), "a")
OURS_NONE, OURS_A = (description_of("f00", step) for step in (NONE, OF_A))


@pytest.mark.parametrize(
    ("history", "revision", "step", "goes_back_to"),
    [
        ([(1, "deployed", "Install complete")], None, NONE, 1),
        ([(1, "superseded", "x"), (2, "deployed", OURS_NONE)], 2, NONE, 1),
        ([(1, "superseded", "x"), (2, "superseded", OURS_NONE), (3, "deployed", OURS_A)], 3, OF_A, 1),
        # A failed upgrade has lost its description: what worked before it counts.
        ([(1, "superseded", "x"), (2, "deployed", OURS_A), (3, "failed", "Upgrade failed")], 2, OF_A, 1),
        # A rollback is the revision that it went back to: of this rollout, on the way; of one before it, at its beginning.
        ([(1, "superseded", "x"), (2, "superseded", OURS_A), (3, "pending-upgrade", "Preparing upgrade"), (4, "deployed", "Rollback to 2")], 4, OF_A, 1),
        ([(1, "superseded", "x"), (2, "superseded", OURS_A), (3, "superseded", "Rollback to 2"), (4, "deployed", "Rollback to 3")], 4, OF_A, 1),
        ([(7, "superseded", OURS_A), (8, "deployed", "Rollback to 2")], None, NONE, 8),
        # Another rollout, or a rollback, came behind it; or somebody wrote something like it. What holds a zone is no way back.
        ([(1, "superseded", "x"), (2, "superseded", OURS_A), (3, "deployed", "Rollback to 1")], None, NONE, 3),
        ([(1, "superseded", "x"), (2, "deployed", description_of("other", OF_A))], None, NONE, 1),
        ([(1, "superseded", "x"), (2, "deployed", description_of("other", Step(None)))], None, NONE, 2),
        ([(1, "superseded", "x"), (2, "deployed", mark_of("f00") + " a, b")], None, NONE, 1),
        ([(7, "superseded", OURS_NONE), (8, "deployed", OURS_A)], 8, OF_A, None),
    ],
)  # fmt: skip
def test_the_history_tells_a_new_rollout_from_one_to_go_on(
    history: list[tuple[int, str, str]], revision: int | None, step: Step, goes_back_to: int | None
) -> None:
    """By the description of the newest revision that worked; the way back is the newest before it that held nobody."""
    start = find_start("kd", [Revision(*one) for one in reversed(history)], "f00")
    assert start == (revision, step, goes_back_to)


def test_a_release_that_is_not_there_or_busy_is_refused() -> None:
    """With what to do: install it; roll back what was killed."""
    with pytest.raises(ReleaseNotThere):
        find_start("kd", [], "f00")
    killed = [Revision(4, "deployed", "x"), Revision(5, "pending-upgrade", "Preparing upgrade")]
    with pytest.raises(ReleaseBusy, match="helm rollback kd 4"):
        find_start("kd", killed, "f00")


def reading(**more: Any) -> Reading:
    """A zone that is sound."""
    given = {
        "now": BEGAN, "total": 150, "live": 150, "moving": 0, "unassigned": 0, "lag_p99_ms": 90.0, "gap_at": None,
        "gap": "",
    }  # fmt: skip
    return Reading(**(given | more))


@pytest.mark.parametrize(
    "doubt",
    [
        {"live": 149},
        {"moving": 1},
        {"unassigned": 1},
        {"lag_p99_ms": 5_000.0},
        "the registry does not answer",
    ],
)
def test_any_doubt_begins_the_minute_anew(doubt: dict[str, Any] | str) -> None:
    """Sound for 59 s, a doubt, and it takes another whole minute; a doubt that lasts ends the step."""
    watch = Watch("a", BEGAN, DEMANDS)
    assert watch.see(reading(), 0.0).then == "wait"
    assert watch.see(reading(), 59.0).then == "wait"
    bad = doubt if isinstance(doubt, str) else reading(**doubt)
    assert watch.see(bad, 60.0).then == "wait"
    assert watch.see(reading(), 61.0).then == "wait"
    assert watch.see(reading(), 120.0).then == "wait"
    assert watch.see(reading(), 121.0).then == "go on"
    lasting = Watch("a", BEGAN, DEMANDS)
    assert [lasting.see(bad, now).then for now in (0.0, 599.0, 600.0)] == ["wait", "wait", "stop"]


def test_a_gap_since_the_step_began_ends_it_at_once() -> None:
    """With its cause; one that was over before is none of the step's; silence of the exchange is no lag."""
    watch = Watch("a", BEGAN, DEMANDS)
    assert watch.see(reading(gap_at=BEGAN), 0.0).then == "wait"
    assert watch.see(reading(gap_at=BEGAN - 1, lag_p99_ms=None), 60.0).then == "go on"
    verdict = watch.see(reading(gap_at=BEGAN + 7 * SECOND, gap="disconnected trade/0"), 1.0)
    assert verdict.then == "stop"
    assert "7 s into the step: disconnected trade/0" in verdict.why


def test_the_beginning_of_a_step_is_reckoned_by_the_databases_clock() -> None:
    """Of a zone that could not be asked before it: back from its first reading, whatever this machine's clock shows."""
    later = BEGAN + 50 * SECOND
    watch = Watch("a", None, DEMANDS, step_at=100.0)
    assert watch.see("no pod of registry a is ready", 140.0).then == "wait"
    assert watch.see(reading(now=later, gap_at=BEGAN - 1), 150.0).then == "wait"
    verdict = watch.see(reading(now=later + 9 * SECOND, gap_at=BEGAN + 3 * SECOND), 159.0)
    assert (verdict.then, "3 s into the step" in verdict.why) == ("stop", True)


def test_a_recent_gap_is_waited_out_before_a_step() -> None:
    """It would be laid at the step's door."""
    assert troubles(reading(), DEMANDS) == []
    assert troubles(reading(gap_at=BEGAN - 61 * SECOND), DEMANDS) == []
    assert troubles(reading(gap_at=BEGAN - 5 * SECOND), DEMANDS) == ["a gap until 5 s ago"]
    assert troubles(reading(live=1), DEMANDS) == ["1 of 150 slots live"]


def entry(**more: Any) -> dict[str, Any]:
    """A zone in `status --json`."""
    gap = {"reason": "disconnected", "slot": "trade/0", "detail": "", "ends_at": BEGAN - 5}
    return {
        "now": BEGAN, "slots": {"total": 6, "live": 5, "moving": 1, "unassigned": 0},
        "lag_ms": {"p99": 12.5}, "gaps": {"newest_at": BEGAN - 5, "newest": [gap]}, **more,
    }  # fmt: skip


def test_a_status_is_read_as_it_is_written() -> None:
    """Away, of another zone or of an older version: no reading, and why."""
    assert read_status({"a": entry()}, "a") == Reading(
        BEGAN, 6, 5, 1, 0, 12.5, BEGAN - 5, "disconnected trade/0"
    )
    assert read_status({"a": entry(gaps={"newest_at": None, "newest": []})}, "a").gap_at is None
    paused = {"reason": "exchange_paused", "slot": "", "detail": "", "ends_at": BEGAN}
    both = {"newest_at": BEGAN, "newest": [paused, *entry()["gaps"]["newest"]]}
    assert read_status({"a": entry(gaps=both)}, "a").gap_at == BEGAN - 5
    for wrong in ({}, {"a": {"address": "x", "error": "refused"}}, {"a": {"shards": 2}}):
        with pytest.raises(AnswerUnreadable):
            read_status(wrong, "a")


@given(
    names=st.lists(st.tuples(st.sampled_from("abz"), st.integers(0, 30)), unique=True, max_size=20),
    used=st.sets(st.integers(0, 30), max_size=5),
)
def test_only_what_is_old_and_unused_goes(names: list[tuple[str, int]], used: set[int]) -> None:
    """Of each label the newest three stay, and whatever is in use; nothing else."""
    maps = [Map(f"{of}-{number:02}", of, f"2026-01-{number + 1:02}") for of, number in names]
    in_use = {one.name for one in maps if int(one.name[-2:]) in used}
    gone = set(may_go(maps, in_use))
    for label in "abz":
        group = sorted((one for one in maps if one.of == label), key=lambda one: one.created_at)
        newest = {one.name for one in group[-3:]}
        assert gone & {one.name for one in group} == {one.name for one in group} - newest - in_use


def test_a_held_pods_configuration_is_in_use_though_no_pod_runs() -> None:
    """Mentioned by the ReplicaSet it would be made from; one without replicas keeps nothing."""

    def item(kind: str, name: str, **spec: Any) -> dict[str, Any]:
        volume = {"name": "config", "configMap": {"name": name}}
        return {"kind": kind, "spec": {**spec, "template": {"spec": {"volumes": [volume]}}}}

    items = [
        item("ReplicaSet", "old", replicas=2),
        item("ReplicaSet", "oldest", replicas=0),
        item("Deployment", "new"),
        {"kind": "Pod", "spec": {"containers": [{"envFrom": [{"configMapRef": {"name": "env"}}]}]}},
    ]
    assert used_maps(items) == {"old", "new", "env"}
    listed: list[dict[str, Any]] = [
        {
            "metadata": {
                "name": "x",
                "labels": {"kalshi-data.io/config": "a"},
                "creationTimestamp": "t",
            }
        },
        {"metadata": {"name": "root-ca"}},
    ]
    assert read_maps(listed) == [Map("x", "a", "t")]
