"""`python -m tests.soak [NAME ...]`: the full figures of the issue, scenario by scenario, on this machine.

Exit status: 0 when everything holds, 1 when something does not, 2 for a wrong name, 130 after Ctrl-C (nothing is left).
"""

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from libs.telemetry import logging
from services.local.processes import ProcessFailed
from tests.soak.play import play, print_played
from tests.soak.scenarios import FULL

EXIT_HOLDS, EXIT_FAILS, EXIT_INTERRUPTED = 0, 1, 130
WIDTH = 150


def main() -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[[], *FULL], metavar="NAME", help=", ".join(FULL)
    )
    parser.add_argument(
        "--state-dir", type=Path, default=Path("var/soak"), help="where data and logs go"
    )
    arguments = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    logging.configure("text", "warning", "soak", "")
    return asyncio.run(
        _interruptible(arguments.names or list(FULL), arguments.state_dir.resolve(), console)
    )


async def _interruptible(names: list[str], directory: Path, console: Console) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    work = asyncio.create_task(_run(names, directory, console), name="soak")
    interrupted = asyncio.create_task(stop.wait(), name="wait-for-stop")
    await asyncio.wait((work, interrupted), return_when=asyncio.FIRST_COMPLETED)
    interrupted.cancel()
    if not work.done():
        console.print("stopping in order ...")
        work.cancel()
        await asyncio.wait((work,))
        if work.cancelled():
            return EXIT_INTERRUPTED
    return EXIT_HOLDS if work.result() else EXIT_FAILS


async def _run(names: list[str], directory: Path, console: Console) -> bool:
    results: dict[str, str] = {}
    for name in names:
        console.rule(name)
        begun = time.monotonic()
        try:
            played = await play([FULL[name]()], directory / name, console)
            said = "holds" if print_played(played, console) else "; ".join(played.failures)
        except (AssertionError, ProcessFailed, TimeoutError) as error:
            said = f"{type(error).__name__}: {error}"
        results[name] = said
        console.print(f"{name}: {time.monotonic() - begun:.0f} s: {said}", soft_wrap=True)
    console.rule("all")
    for name, said in results.items():
        console.print(f"{name}: {said}", soft_wrap=True)
    return all(said == "holds" for said in results.values())


if __name__ == "__main__":
    raise SystemExit(main())
