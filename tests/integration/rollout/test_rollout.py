"""`kalshi-data rollout` with real subprocesses: programs named helm and kubectl that answer from a script."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.rollout.command import EXIT_INTERRUPTED, EXIT_OK, EXIT_STOPPED, EXIT_USAGE, main
from services.rollout.errors import ToolFailed, ToolMissing, ToolTimedOut
from services.rollout.tools import Tool
from tests.integration.rollout.world import INSTALLED, World, world

__all__ = ["world"]

WORDS = ["kd", "chart", "-n", "data", "--kube-context", "here", "-f", "mine.yaml", "--sound-s", "0.05"]  # fmt: skip


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def roll(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; return its status and what it showed."""

    def run(*more: str) -> tuple[int, str]:
        status = main([*WORDS, *more], look_s=0.01)
        return status, capsys.readouterr().out

    return run


def released(calls: list[list[str]]) -> list[Any]:
    """What each upgrade of these calls released."""
    return [
        json.loads(call[call.index("--set-json") + 1].partition("=")[2])
        for call in calls
        if call[:2] == ["helm", "upgrade"]
    ]


def test_zone_by_zone_to_the_end(world: World, roll: Run) -> None:
    """Nobody, a, a and b, everybody; between them workloads, TimescaleDB and status of that zone; at last old ConfigMaps."""
    status, shown = roll()
    assert status == EXIT_OK, shown
    calls = world.calls()
    assert released(calls) == [[], ["a"], ["a", "b"], None]
    upgrade = next(call for call in calls if call[:2] == ["helm", "upgrade"])
    assert upgrade[2:6] == ["kd", "chart", "-f", "mine.yaml"]
    assert upgrade[-4:] == ["--namespace", "data", "--kube-context", "here"]
    assert upgrade[upgrade.index("--history-max") + 1] == "30"
    assert not {"--wait", "--atomic"} & {word for call in calls for word in call}
    second = [call for call in calls if call[:2] == ["helm", "upgrade"]][1]
    after = calls[calls.index(second) + 1 :]
    replaced = [call[3] for call in after if call[1:3] == ["rollout", "status"]]
    assert replaced[:2] == ["statefulset/kd-database-a", "deployment/kd-connector-a"]
    told = [call for call in after if call[1] == "exec"]
    assert told[0][2:7] == ["kd-database-a-new", "-c", "postgres", "--namespace", "data"]
    assert told[1][-5:] == [
        "kalshi-data",
        "status",
        "--json",
        "--config",
        "/etc/kalshi-data/gatherer.yaml",
    ]
    assert told[1][2] == "kd-registry-a-new"
    assert next(call for call in calls if call[1] == "delete")[2:6] == [
        "configmaps", "--ignore-not-found", "--wait=false", "kd-config-a-1",
    ]  # fmt: skip
    assert "TimescaleDB 2.28.3 -> 2.29.2" in shown
    assert "waiting for kd-migrate-a-01234567" in shown


def test_a_gap_stops_it_and_a_second_run_goes_on(world: World, roll: Run) -> None:
    """The next zone is not touched; how to go back is said; the second run looks at the zone again and releases the rest."""
    world.change(looks={"a": [{}, {"live": 5}, {"gap": True}, {}]})
    status, shown = roll()
    assert status == EXIT_STOPPED
    assert "has a gap" in shown
    assert "disconnected trade/0 eof" in shown
    assert "new: a" in shown
    assert "old: b" in shown
    assert "helm rollback kd 4 --namespace data --kube-context here" in shown
    assert "after kubectl scale Helm 4 wants --force-conflicts" in shown
    assert "where database.image became a newer TimescaleDB, keep that image" in shown
    assert released(world.calls()) == [[], ["a"]]
    status, shown = roll()
    assert status == EXIT_OK, shown
    assert "goes on behind revision 6" in shown
    assert released(world.calls()) == [["a"], ["a", "b"], None]


def test_a_zone_whose_storage_is_full_keeps_its_pods(world: World, roll: Run) -> None:
    """What they hold back would go with them: it stops before that zone's step, unless told that these rows may go."""
    world.change(looks={"b": [{"storage": 0.97}]})
    status, shown = roll()
    assert status == EXIT_STOPPED
    assert "zone b has filled 97%" in " ".join(shown.split())
    assert "--despite-full" in shown
    assert released(world.calls()) == [[], ["a"]]
    status, shown = roll("--despite-full")
    assert status == EXIT_OK, shown
    assert released(world.calls()) == [["a"], ["a", "b"], None]
    world.change(looks={"a": [{"storage": 0.94}]})
    assert roll()[0] == EXIT_OK


def test_other_values_are_another_rollout(world: World, roll: Run) -> None:
    """After a stop with the old ones, everybody is held again before anybody follows."""
    world.change(stuck=["deployment/kd-connector-a"])
    status, shown = roll()
    assert (status, released(world.calls())) == (EXIT_STOPPED, [[], ["a"]])
    assert "deployment/kd-connector-a is not there" in shown
    world.change(stuck=[])
    Path("mine.yaml").write_text("image: {tag: newer}\n")
    status, _ = roll("--hold", "b")
    assert (status, released(world.calls())) == (EXIT_OK, [[], ["a"]])


def test_what_is_late_by_kubernetes_deadline_is_waited_for_by_ours(world: World, roll: Run) -> None:
    """A registry lists the exchange for longer than the ten minutes after which kubectl breaks off; ours is an end, too."""
    name = "deployment/kd-connector-a"
    world.change(late={name: 2})
    status, shown = roll()
    assert (status, released(world.calls())) == (EXIT_OK, [[], ["a"], ["a", "b"], None]), shown
    assert shown.count(f"{name} is late") == 1
    world.change(late={name: 10**9}, history=[INSTALLED])
    status, shown = roll("--rollout-s", "0.2")
    assert (status, released(world.calls())) == (EXIT_STOPPED, [[], ["a"]])
    assert f"{name} is not there" in shown


def test_a_zone_that_stores_nothing_while_another_does_is_not_sound(
    world: World, roll: Run
) -> None:
    """All its slots are live and no gap is written: where nothing is stored neither is. When all are silent, so is the exchange."""
    world.change(looks={"a": [{}, {"silent": True}]})
    status, shown = roll("--within-s", "0.05")
    assert (status, released(world.calls())) == (EXIT_STOPPED, [[], ["a"]])
    assert "nothing stored for a minute, while zone b stores" in shown
    world.change(looks={"a": [{"silent": True}], "b": [{"silent": True}]}, history=[INSTALLED])
    status, shown = roll()
    assert status == EXIT_OK, shown


def test_what_fails_ends_it_with_the_reason(world: World, roll: Run) -> None:
    """A migration that has failed, an upgrade that helm refuses, a registry that never answers, a release that is not there."""
    world.change(job_ends="Failed")
    status, shown = roll()
    assert (status, released(world.calls())) == (EXIT_STOPPED, [[]])
    assert "kd-migrate-a-01234567 has failed (BackoffLimitExceeded)" in shown
    assert "kubectl delete job/kd-migrate-a-01234567, then run this again" in " ".join(
        shown.split()
    )
    world.change(job_ends="Complete", history=[INSTALLED], helm_refuses=[["a"]])
    status, shown = roll()
    assert status == EXIT_STOPPED
    assert "UPGRADE FAILED: forbidden" in shown
    world.change(helm_refuses=[], history=[INSTALLED], looks={"a": [{"dies": "no such container"}]})
    status, shown = roll("--within-s", "0.05")
    assert status == EXIT_STOPPED
    assert "zone a is not sound after 0 s" in shown
    assert "no such container" in shown
    world.change(history=[])
    status, shown = roll()
    assert status == EXIT_STOPPED
    assert "nothing was changed" in shown


def test_zones_that_are_not_there_stop_it_before_anybody_follows(world: World, roll: Run) -> None:
    """None at all: kubectl looks elsewhere than helm, and the next step would be everybody. A zone to hold that is mistyped."""
    world.change(zones=[])
    status, shown = roll()
    assert (status, released(world.calls())) == (EXIT_STOPPED, [])
    assert "kubectl no Gatherer of it" in shown
    assert "deleted for other slots: then helm upgrade makes them again" in " ".join(shown.split())
    assert "nothing was changed" in shown
    world.change(zones=["a", "b"])
    status, shown = roll("--hold", "a", "--hold", "c")
    assert (status, released(world.calls())) == (EXIT_STOPPED, [[]])
    assert "--hold c: no such zone; there are: a, b" in shown


def test_dry_run_changes_nothing(world: World, roll: Run) -> None:
    """Every step with helm's own words."""
    status, shown = roll("--dry-run", "--password", "hush")
    assert status == EXIT_OK
    assert released(world.calls()) == []
    assert [f"{number}. helm upgrade kd chart" in shown for number in (1, 2, 3, 4, 5)] == [
        True
    ] * 4 + [False]
    assert 'rollout.released=["a","b"]' in shown
    assert "hush" not in shown


def test_wrong_words_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """With status 2, before anything is asked."""
    assert main(["kd", "chart", "--wait"]) == EXIT_USAGE
    assert "held zones never become ready" in capsys.readouterr().err


async def test_an_interrupt_ends_the_program_that_runs(world: World) -> None:
    """Nothing is left behind, and the way on is said."""
    world.change(hangs="upgrade")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.rollout", *(str(word) for word in WORDS),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    pid_file = Path("pid")
    async with asyncio.timeout(60):
        while not (pid_file.exists() and pid_file.read_text()):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, _ = await process.communicate()
    assert process.returncode == EXIT_INTERRUPTED
    assert b"stopped: interrupted" in out
    assert b"run the same command again" in out
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)  # noqa: ASYNC240


async def test_a_program_that_hangs_or_is_missing_is_an_error(world: World) -> None:
    """Ended after its time, with its children; what it complains of is in the message."""
    world.change(hangs="history")
    with pytest.raises(ToolTimedOut, match=r"no end after 0\.3 s"):
        await Tool("helm").run("history", "kd", timeout_s=0.3)
    world.change(hangs="", history=[])
    with pytest.raises(ToolFailed, match="release: not found"):
        await Tool("helm").run("history", "kd")
    with pytest.raises(ToolMissing):
        await Tool("no-such-program").run("x")
