"""Programs that are run: bounded in time, with their words in the error."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping

from tests.cluster.errors import CommandFailed

TIMEOUT_S = 60.0
WORDS_MAX = 2_000


async def run(
    *argv: str,
    stdin: str | None = None,
    timeout_s: float = TIMEOUT_S,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program; return what it wrote to standard output.

    Raises:
        CommandFailed: its status is not 0, or it was not done in time (it is killed then, with its children).
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    said = " ".join(argv[:6])
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError:
        raise CommandFailed(f"{said} ...: not done in {timeout_s:.0f} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        words = err.decode(errors="replace").strip() or out.decode(errors="replace").strip()
        raise CommandFailed(f"{said} ...: status {process.returncode}: {words[-WORDS_MAX:]}")
    return out.decode(errors="replace")


async def succeeds(*argv: str, timeout_s: float = TIMEOUT_S) -> bool:
    """True when a program ends with status 0 in time."""
    try:
        await run(*argv, timeout_s=timeout_s)
    except CommandFailed:
        return False
    return True
