"""The door to helm and kubectl: subprocesses with time-outs, whose end is waited for whatever happens."""

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.rollout.errors import AnswerUnreadable, ToolFailed, ToolMissing, ToolTimedOut

END_S: Final = 10.0
"""Seconds a program has to end by itself once it is told to."""
SAID_MAX: Final = 2_000
"""Letters of a program's complaint that are repeated."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One program.

    Attributes:
        common: words that stand behind those of every call, such as the namespace.
    """

    program: str
    common: tuple[str, ...] = ()

    async def run(self, *words: str, timeout_s: float = 60.0, behind: Sequence[str] = ()) -> str:
        """Run it and return what it wrote to standard output.

        Args:
            behind: words behind the common ones: a command for `kubectl exec`, after `--`.

        Raises:
            ToolMissing, ToolFailed, ToolTimedOut: as they say.
        """
        argv = [self.program, *words, *self.common, *behind]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise ToolMissing(f"{self.program} cannot be run ({error.strerror})") from error
        try:
            async with asyncio.timeout(timeout_s):
                out, said = await process.communicate()
        except TimeoutError as error:
            raise ToolTimedOut(f"{_shown(argv)}: no end after {timeout_s:g} s") from error
        finally:
            if process.returncode is None:
                await _end(process)
        text = out.decode("utf-8", "replace")
        if process.returncode:
            complaint = said.decode("utf-8", "replace").strip()[-SAID_MAX:]
            raise ToolFailed(f"{_shown(argv)}: {complaint or f'exit {process.returncode}'}", text)
        return text

    async def json(self, *words: str, timeout_s: float = 60.0) -> Any:
        """Run it and read its answer as JSON.

        Raises:
            AnswerUnreadable: it is none. Others as run.
        """
        text = await self.run(*words, timeout_s=timeout_s)
        try:
            return json.loads(text)
        except ValueError as error:
            raise AnswerUnreadable(f"{self.program} {' '.join(words)}: no JSON: {error}") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tell the program and its children to end, and kill what does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
            break
        except TimeoutError:
            continue


def _shown(argv: Sequence[str]) -> str:
    """The call without the words that may hold what nobody should see."""
    words = argv[:3] if argv[0] == "helm" else argv[:5]
    return " ".join(words)
