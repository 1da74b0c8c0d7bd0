"""Whole processes, because signals, exit statuses and what is printed are what a supervisor meets."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from libs.exchange.errors import AuthRejected
from libs.runtime.clock import ManualClock
from libs.runtime.errors import ConfigInvalid, EternalTaskEnded
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime, exit_status
from libs.store.errors import SchemaMismatch, StoreConflict
from libs.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, sys
from dataclasses import dataclass
from libs.exchange.errors import AuthRejected
from libs.runtime.sections import HealthSettings, LogSettings, MetricsSettings
from libs.runtime.service import service_main
from libs.store.errors import StoreUnavailable

@dataclass(frozen=True)
class Settings:
    zone: str
    mode: str = "work"
    health: HealthSettings = HealthSettings("127.0.0.1", 0)
    metrics: MetricsSettings = MetricsSettings("127.0.0.1", 0)
    log: LogSettings = LogSettings()

async def work(settings, runtime):
    runtime.health.ready = True
    while await runtime.sleep(60):
        pass
    if settings.mode == "store-away":
        raise StoreUnavailable("away")
    if settings.mode == "slow":
        await asyncio.to_thread(sys.stdin.read)
    print("flushed", flush=True)

async def fail():
    raise AuthRejected

async def run(settings, runtime):
    if settings.mode == "end":
        return
    if settings.mode == "store-away-early":
        raise StoreUnavailable("away")
    if settings.mode == "crash":
        raise RuntimeError("broken")
    async with runtime.tasks() as tasks:
        tasks.start("work", work(settings, runtime))
        if settings.mode == "refused":
            tasks.start("fail", fail())
        if settings.mode == "task-ends":
            tasks.start("brief", asyncio.sleep(0))

service_main("sample", Settings, run)
"""


def start(*arguments: str, **environ: str) -> "subprocess.Popen[str]":
    clean = {name: v for name, v in os.environ.items() if not name.startswith("KALSHI_DATA_")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        env={**clean, "KALSHI_DATA_ZONE": "a", "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, list[dict[str, Any]], str]:
    out, err = process.communicate(timeout=60)
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return process.returncode, lines, err if "Traceback" in err or not lines else out


def wait_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    while "ready_changed" not in process.stdout.readline():
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_order_and_a_second_does_not_hurt(number: signal.Signals) -> None:
    """Status 0 after what was in flight is done, which here is when its input ends, however often the signal comes."""
    process = start(KALSHI_DATA_MODE="slow")
    wait_ready(process)
    process.send_signal(number)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "stopping"
    process.send_signal(number)
    assert json.loads(process.stdout.readline())["event"] == "already_stopping"
    status, lines, out = finish(process)
    assert status == 0
    assert "flushed" in out
    assert [line["event"] for line in lines] == ["stopped"]


def test_a_database_away_at_the_end_is_an_orderly_end() -> None:
    """Status 0 and a line that says so: whoever stops a platform may stop its database first."""
    process = start(KALSHI_DATA_MODE="store-away")
    wait_ready(process)
    process.send_signal(signal.SIGTERM)
    status, lines, _ = finish(process)
    assert status == 0
    assert [line["event"] for line in lines] == ["stopping", "stopped_without_database", "stopped"]


def test_every_line_carries_service_and_zone() -> None:
    """Bound once by the frame."""
    process = start(KALSHI_DATA_MODE="end")
    _, lines, _ = finish(process)
    assert {(line["service"], line["zone"]) for line in lines} == {("sample", "a")}
    assert lines[0]["event"] == "started"


@pytest.mark.parametrize(
    ("mode", "status", "error", "traceback"),
    [
        ("end", 1, "EternalTaskEnded", False),
        ("task-ends", 1, "EternalTaskEnded", False),
        ("crash", 1, "RuntimeError", True),
        ("refused", 3, "AuthRejected", False),
        ("store-away-early", 1, "StoreUnavailable", False),
    ],
)
def test_what_ends_a_service_is_logged_once_and_becomes_its_status(
    mode: str, status: int, error: str, traceback: bool
) -> None:
    """A known fault is one line that says what to do; only the unexpected shows its traceback."""
    returned, lines, _ = finish(start(KALSHI_DATA_MODE=mode))
    failed = [line for line in lines if line["event"] == "service_failed"]
    assert returned == status
    assert [line["error"] for line in failed] == [error]
    assert ("traceback" in failed[0]) == traceback
    if mode == "refused":
        assert "check api_key_id" in failed[0]["reason"]


def test_an_unusable_configuration_is_status_2_with_every_fault() -> None:
    """On standard error, one line each; nothing is started."""
    status, lines, err = finish(start(KALSHI_DATA_TYPO="1", KALSHI_DATA_HEALTH__PORT="x"))
    assert (status, lines) == (2, [])
    assert "health.port: expected a whole number, got 'x'" in err
    assert "typo: unknown key (environment KALSHI_DATA_TYPO)" in err


def test_a_missing_zone_and_a_taken_file_are_told_together(tmp_path: Path) -> None:
    """--config names a file; what it lacks is listed."""
    (tmp_path / "c.yaml").write_text("mode: work\n")
    process = start("--config", str(tmp_path / "c.yaml"), "--check", KALSHI_DATA_ZONE="b")
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "sample: the configuration is complete\n")


def test_version_is_printed() -> None:
    """--version, before any configuration is read."""
    process = start("--version", KALSHI_DATA_TYPO="1")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith("kalshi-data v1.")


def runtime() -> Runtime:
    metrics, clock = Metrics(), ManualClock(0)
    return Runtime(clock, asyncio.Event(), HealthState("x", "", clock, metrics), metrics)


async def test_a_task_that_ends_early_takes_the_others_with_it() -> None:
    """The first early end cancels its siblings and is the one error that comes out."""
    frame, cancelled = runtime(), asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(EternalTaskEnded, match="the task brief ended"):
        async with frame.tasks() as tasks:
            tasks.start("wait", wait())
            tasks.start("brief", asyncio.sleep(0))
    assert cancelled.is_set()


async def test_tasks_may_end_after_stop() -> None:
    """The ordinary way out."""
    frame = runtime()

    async def wait() -> None:
        await frame.stop.wait()

    async with asyncio.timeout(60), frame.tasks() as tasks:
        tasks.start("wait", wait())
        frame.stop.set()


async def test_a_single_fault_keeps_its_type_and_cause() -> None:
    """No ExceptionGroup around it, and the chain to what caused it is whole."""

    async def fail() -> None:
        raise KeyError("k") from OSError("cause")

    with pytest.raises(KeyError) as caught:
        async with runtime().tasks() as tasks:
            tasks.start("fail", fail())
    assert isinstance(caught.value.__cause__, OSError)


async def test_sleep_ends_with_stop() -> None:
    """True while the process should go on, False at once after stop."""
    frame = runtime()
    assert await frame.sleep(0) is True
    frame.stop.set()
    assert await frame.sleep(3600) is False


def test_statuses_follow_the_kind_of_error() -> None:
    """By the class, its bases included; anything else is 1."""

    class TooOld(SchemaMismatch):
        pass

    errors = (ConfigInvalid(["x"]), AuthRejected(), StoreConflict(), TooOld(), ValueError())
    assert [exit_status(error) for error in errors] == [2, 3, 4, 5, 1]
