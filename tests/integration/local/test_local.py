"""`kalshi-data local` as a user starts and stops it: real processes, real signals."""

import asyncio
import os
import re
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WITHIN_S = 240.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc"),
]


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory that the servers' own user can reach too, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="kalshi-data-local-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory, "state")


async def start(state: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", "local", "--zones", "1", "--state-dir", str(state), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


def processes_of(state: Path) -> list[str]:
    """Command lines of every process that names the run's directory, in its arguments or as its working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            place = str((entry / "cwd").readlink())
        except OSError:
            continue
        if str(state) in line or place.startswith(str(state)):
            found.append(line)
    return found


async def until(what: Callable[[], bool], process: asyncio.subprocess.Process) -> None:
    """Wait, within a bound, for something the running process does."""
    async with asyncio.timeout(WITHIN_S):
        while not what():
            assert process.returncode is None, (await process.communicate())[0].decode()
            await asyncio.sleep(0.05)


def says(log: Path, event: str) -> Callable[[], bool]:
    return lambda: log.is_file() and event in log.read_text()


@pytest.mark.parametrize(
    ("log", "event"),
    [
        ("postgres-a/postgres.log", "starting PostgreSQL"),
        ("logs/registry-a.log", "started"),
        ("logs/connector-a-1.log", "slot_heard"),
    ],
)
async def test_ctrl_c_at_any_moment_leaves_no_process_behind(
    state: Path, log: str, event: str
) -> None:
    """While servers start, while services start, while capturing: the exit is orderly and nothing is left."""
    process = await start(state, "--demo", "--seconds", "60")
    try:
        await until(says(state / log, event), process)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(WITHIN_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130, output.decode()
    assert processes_of(state) == []


async def page(process: asyncio.subprocess.Process, what: str) -> str:
    """Return the page behind the address that the run says at its start."""
    assert process.stdout is not None
    address = re.compile(f"^{what}.* (http://\\S+)")
    async with asyncio.timeout(WITHIN_S):
        while not (found := address.match(line := (await process.stdout.readline()).decode())):
            assert line, f"the run ended without a word of its {what}"
    request = urllib.request.Request(found[1].rstrip(","), headers={"accept": "text/html"})
    with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
        text: str = answer.read().decode()
    return text


async def test_a_run_is_stopped_and_taken_up_again(state: Path) -> None:
    """Without --demo the data stays: the second run starts on the first one's databases and ends with status 0."""
    for run in (1, 2):
        process = await start(state)
        try:
            await until(says(state / "logs/connector-a-1.log", "slot_heard"), process)
            if run == 1:
                assert "<title>Simulated Kalshi" in await page(process, "simulated exchange")
                assert "<title>markets" in await page(process, "zone a: markets")
            (state / "logs/connector-a-1.log").unlink()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(WITHIN_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, f"run {run}: {output.decode()}"
        assert processes_of(state) == []


async def test_the_same_directory_is_not_used_twice(state: Path) -> None:
    """A second run beside the first says what is wrong, and the first goes on."""
    first = await start(state)
    try:
        await until(says(state / "postgres-a/postgres.log", "starting PostgreSQL"), first)
        second = await start(state)
        output, _ = await second.communicate()
        assert second.returncode == 1
        assert "in use by another run" in output.decode()
        assert first.returncode is None
    finally:
        first.send_signal(signal.SIGTERM)
        await first.communicate()
    assert processes_of(state) == []


async def test_a_real_exchange_needs_a_key(state: Path) -> None:
    """One line says what is missing; nothing is started."""
    process = await start(state, "--exchange", "demo")
    output, _ = await process.communicate()
    assert process.returncode == 2
    assert output.decode().strip().splitlines() == [
        "kalshi-data local: --exchange demo needs --api-key-id and --private-key-file (README: 'A key')"
    ]


async def test_a_demo_of_no_length_is_refused(state: Path) -> None:
    """One line says so, before what the last demo left is removed."""
    process = await start(state, "--demo", "--seconds", "-4")
    output, _ = await process.communicate()
    assert process.returncode == 2
    assert output.decode().strip().splitlines() == [
        "kalshi-data local: --seconds -4: a number above 0"
    ]


async def test_faults_that_are_neither_a_file_nor_a_seed_are_refused(state: Path) -> None:
    """One line says what would do; nothing is started."""
    process = await start(state, "--demo", "--faults", "nosuch.yaml")
    output, _ = await process.communicate()
    assert process.returncode == 2
    assert output.decode().strip().splitlines() == [
        "kalshi-data local: --faults nosuch.yaml: neither a file nor a seed (a number from 1)"
    ]
