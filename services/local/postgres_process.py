"""The processes of one PostgreSQL server: who they are, whether they are gone, and how to kill them all at once."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


def is_gone(pid: int) -> bool:
    """True when no such process runs; a zombie is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # It is there and another user's: only /proc says whether it is a zombie.
        pass
    status = _stat(pid)
    return status is not None and status[0] == "Z"


def _stat(pid: int) -> tuple[str, int] | None:
    """Return (state, parent) of a process, None when unknown."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent this is."""
    if PROC.joinpath("self/stat").exists():
        return [p for p in _all_pids() if (found := _stat(p)) is not None and found[1] == pid]
    answer = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in answer.stdout.split()]


def running_in(data: Path) -> list[int]:
    """Return the live processes that work in this data directory (Linux; elsewhere none are found)."""
    if not PROC.is_dir():
        return []
    found = []
    for pid in _all_pids():
        with contextlib.suppress(OSError):
            if (PROC / str(pid) / "cwd").readlink() == data and not is_gone(pid):
                found.append(pid)
    return found


def postmaster_pid(data: Path) -> int | None:
    """Return the process that postmaster.pid names, None without such a file."""
    try:
        first = (data / "postmaster.pid").read_text().split("\n", 1)[0]
        return int(first)
    except (OSError, ValueError):
        return None


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that still run."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_server(postmaster: int) -> list[int]:
    """Kill -9 a postmaster and all its children, as a power cut would; return their process ids.

    The postmaster is halted first, so that no child can be born between the look and the shot.
    """
    send([postmaster], signal.SIGSTOP)
    family = [postmaster, *children_of(postmaster)]
    send(family, signal.SIGKILL)
    return family


async def wait_gone(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Wait until all are gone, at most that long; return those that are not."""
    left = [pid for pid in pids if not is_gone(pid)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while left := [pid for pid in left if not is_gone(pid)]:  # noqa: ASYNC110 - nothing tells us when a process ends
                await asyncio.sleep(0.01)
    return left
