"""Real processes of the platform at a twentieth of the price: forked from one that has imported it already.

What runs is `kalshi-data ARGUMENTS`, in a process of its own that signals reach like any other. It ends with us.
"""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from services.cli.__main__ import main
from services.local.processes import PR_SET_PDEATHSIG, on_linux

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["services.deduplicator.service", "services.cli.run_command"])


def _be(arguments: Sequence[str], log: str) -> None:
    if on_linux():
        # Our parent is the fork server, which ends when the tests' process does, however that ends.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.exit(main(list(arguments)))


class Forked:
    """One process, from its start on.

    Args of the constructor: what follows `kalshi-data`, and the file its output is appended to.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_be, args=(list(arguments), str(log)), daemon=True
        )
        self._process.start()

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        await self._ended()

    async def stop(self) -> int:
        """SIGTERM; return the exit status."""
        self._process.terminate()
        return await self._ended()

    async def _ended(self) -> int:
        async with asyncio.timeout(60):
            await asyncio.to_thread(self._process.join)
        status = self._process.exitcode
        assert status is not None
        return status
