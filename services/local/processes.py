"""Child processes of a laptop's topology: started so that none outlives us, stopped in order, killed on purpose."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

PR_SET_PDEATHSIG = 1


class ProcessFailed(RuntimeError):
    """A process of the topology ended by itself; the message names its log."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to start: `name` (unique, also the log's name), module for `python -m`, its arguments and environment."""

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    health_port: int
    zone: str | None = None


def die_with_parent(signal_number: int) -> Callable[[], None]:
    """Return a preexec function: the kernel sends the child this signal when our process ends, however it ends."""
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def apply() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:
            os._exit(1)

    return apply


def on_linux() -> bool:
    """PDEATHSIG is Linux's; elsewhere an orderly stop and Ctrl-C still leave nothing behind."""
    return sys.platform == "linux"


@dataclass(slots=True)
class Child:
    """One running process of the topology."""

    spec: ProcessSpec
    process: asyncio.subprocess.Process
    log: Path
    handle: IO[bytes] = field(repr=False)

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM, wait at most grace_s, then kill; return the exit status."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await self.process.wait()
            except TimeoutError:
                await self.kill()
        self.handle.close()
        return await self.process.wait()

    async def kill(self) -> None:
        """Kill -9 the process and wait until it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        self.handle.close()

    def failure(self) -> str:
        """Say how the process ended, with the last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-8:]
        status = self.process.returncode
        return f"{self.spec.name} ended with status {status}; {self.log}:\n  " + "\n  ".join(lines)


async def start(spec: ProcessSpec, log_dir: Path) -> Child:
    """Start one process in a session of its own (the terminal's Ctrl-C reaches only us), output to its log."""
    log = log_dir / f"{spec.name}.log"
    handle = log.open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", spec.module, *spec.arguments,
        env={**os.environ, **spec.environment},
        stdin=asyncio.subprocess.DEVNULL, stdout=handle, stderr=handle,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM) if on_linux() else None,
    )  # fmt: skip
    return Child(spec, process, log, handle)


class Supervisor:
    """Holds the children; whatever happens, leaving the context leaves none of them behind."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self.children: dict[str, Child] = {}

    async def __aenter__(self) -> Self:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.kill(list(self.children))

    async def start(self, specs: list[ProcessSpec]) -> None:
        """Start all of them; a name must not be running."""
        for spec in specs:
            if spec.name in self.children:
                raise AssertionError(f"{spec.name} is running")
            self.children[spec.name] = await start(spec, self._log_dir)

    async def finish(self, name: str, within_s: float) -> None:
        """Wait for a process that ends by itself.

        Raises:
            ProcessFailed: it ended with another status than 0, or not in time.
        """
        child = self.children[name]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await child.process.wait()
        if child.process.returncode != 0:
            raise ProcessFailed(child.failure())
        await self.kill([name])

    async def stop(self, names: list[str], grace_s: float) -> None:
        """Stop these together.

        Raises:
            ProcessFailed: one of them did not end with status 0.
        """
        children = [self.children.pop(name) for name in names if name in self.children]
        statuses = await asyncio.gather(*(child.stop(grace_s) for child in children))
        failures = [c.failure() for c, s in zip(children, statuses, strict=True) if s != 0]
        if failures:
            raise ProcessFailed("\n".join(failures))

    async def kill(self, names: list[str]) -> None:
        """Kill -9 these together."""
        children = [self.children.pop(name) for name in names if name in self.children]
        await asyncio.gather(*(child.kill() for child in children))

    def check(self) -> None:
        """Raise ProcessFailed when a child has ended by itself."""
        for child in self.children.values():
            if not child.alive:
                raise ProcessFailed(child.failure())
