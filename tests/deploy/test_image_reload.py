"""The first process of the development image: new code without a new container."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.locks import ROOT

COMMAND = """#!{python}
import os, signal, sys
def end(number, frame):
    os.write(1, b"end\\n")
    os._exit(7)
signal.signal(signal.SIGTERM, end)
os.write(1, (" ".join(["up", *sys.argv[1:]]) + "\\n").encode())
if sys.argv[1] == "fails":
    sys.exit(3)
while True:
    signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a `kalshi-data` that says when it begins and ends."""
    program = tmp_path / "kalshi-data"
    program.write_text(COMMAND.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


@pytest.fixture
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The reloader with `kalshi-data run registry` under it, which has begun."""
    process = _start(folder, "run", "registry")
    assert _line(process) == "up run registry"
    yield process
    if process.poll() is None:
        process.terminate()
    process.communicate()


def test_a_hangup_starts_the_command_anew_and_stops_the_old_one_in_order(
    running: subprocess.Popen[str],
) -> None:
    """The old process ends by SIGTERM before the new one begins, with the same arguments, as often as asked."""
    for _ in range(2):
        running.send_signal(signal.SIGHUP)
        assert _line(running) == "end"
        assert _line(running) == "up run registry"
    assert running.poll() is None


def test_a_stop_reaches_the_command_and_its_status_is_ours(running: subprocess.Popen[str]) -> None:
    """SIGTERM of the kubelet is SIGTERM of the service; the container ends as the service does."""
    running.send_signal(signal.SIGTERM)
    assert _line(running) == "end"
    assert running.wait() == 7


def test_a_command_that_ends_by_itself_ends_the_container(folder: Path) -> None:
    """Kubernetes sees the crash and restarts; nothing hides it."""
    process = _start(folder, "fails")
    assert process.communicate()[0] == "up fails\n"
    assert process.returncode == 3


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "images" / "kalshi-data-reload", *arguments],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
