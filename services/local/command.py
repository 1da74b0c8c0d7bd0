"""`kalshi-data local`: the whole platform on this machine, as a demo with a verdict or for as long as you like."""

import argparse
import asyncio
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from libs.runtime.clock import SystemClock
from libs.telemetry import logging
from services.local.config_files import TooManyConnections
from services.local.demo import run_demo, run_until_stopped
from services.local.postgres_errors import PostgresFailed, PostgresUnusable
from services.local.processes import ProcessFailed
from services.local.run import Options
from services.local.state_dir import AlreadyRunning
from services.local.topology import ZONE_NAMES

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
DEMO_WINDOW_S = 10.0
FAULTS_EVERY_S = 5.0
OPENS_IN_S = 20.0
PIPE_WIDTH = 130


def main(argv: list[str]) -> int:
    """Run; return 0 when everything (in a demo: the verdict too) holds, 1 when it does not, 2 for a wrong command."""
    arguments = _parser().parse_args(argv)
    fault = _wrong(arguments)
    if fault:
        sys.stderr.write(f"kalshi-data local: {fault}\n")
        return EXIT_USAGE
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    logging.configure("text", "warning", "local", "")
    try:
        return asyncio.run(_interruptible(arguments, console))
    except (
        AlreadyRunning,
        TooManyConnections,
        PostgresUnusable,
        PostgresFailed,
        ProcessFailed,
    ) as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}", markup=True)
        return EXIT_FAILED


async def _interruptible(arguments: argparse.Namespace, console: Console) -> int:
    """Run until done, or until Ctrl-C or SIGTERM; then everything that was started is stopped in order."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    options, clock = _options(arguments), SystemClock()
    if arguments.demo:
        work = asyncio.create_task(
            run_demo(options, arguments.seconds, console, clock), name="demo"
        )
    else:
        work = asyncio.create_task(run_until_stopped(options, console, clock), name="local")
    interrupted = asyncio.create_task(stop.wait(), name="wait-for-stop")
    await asyncio.wait((work, interrupted), return_when=asyncio.FIRST_COMPLETED)
    interrupted.cancel()
    if not work.done():
        console.print("stopping in order ...")
        work.cancel()
        await asyncio.wait((work,))
        if work.cancelled():
            return EXIT_INTERRUPTED if arguments.demo else 0
    return work.result()


def _options(arguments: argparse.Namespace) -> Options:
    default = Path("var", "demo" if arguments.demo else "local")
    return Options(
        state_dir=(arguments.state_dir or default).resolve(),
        zones=ZONE_NAMES[: arguments.zones],
        environment=arguments.exchange,
        api_key_id=arguments.api_key_id,
        private_key_file=arguments.private_key_file,
        window_s=DEMO_WINDOW_S if arguments.demo else 3600.0,
        seed=arguments.seed,
        fresh=arguments.demo,
        opens_in_s=OPENS_IN_S if arguments.demo else 0.0,
        simulated=_faults(arguments.faults),
    )


def _faults(chosen: str) -> dict[str, Any]:
    """Return the simulator's settings for a file of faults, or for a seed of them."""
    if not chosen:
        return {}
    if chosen.isdecimal():
        return {"faults_random": int(chosen), "faults_every_s": FAULTS_EVERY_S}
    return {"faults_file": str(Path(chosen).resolve())}


def _wrong(arguments: argparse.Namespace) -> str:
    """Say what is wrong with the arguments; empty: nothing."""
    faults = arguments.faults
    if not 0 < arguments.seconds < math.inf:
        return f"--seconds {arguments.seconds:g}: a number above 0"
    if faults and not faults.isdecimal() and not Path(faults).is_file():
        return f"--faults {faults}: neither a file nor a seed (a number from 1)"
    if arguments.exchange == "simulator":
        return ""
    if faults:
        return "--faults needs the simulator; no other exchange does what it is told"
    if arguments.demo:
        return "--demo needs the simulator, whose journal is the truth the verdict is taken against"
    if not arguments.api_key_id or arguments.private_key_file is None:
        return f"--exchange {arguments.exchange} needs --api-key-id and --private-key-file (README: 'A key')"
    if not arguments.private_key_file.is_file():
        return f"--private-key-file {arguments.private_key_file}: there is no such file"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalshi-data local", description=__doc__)
    add = parser.add_argument
    demo = "run for --seconds, cut one zone's power halfway, then give the verdict"
    add("--demo", action="store_true", help=demo)
    add("--seconds", type=float, default=60.0, help="length of the demo (default 60)")
    zones = "how many gatherers (default 3; 1 is the light form)"
    add("--zones", type=int, choices=(1, 2, 3), default=3, help=zones)
    state = "where data, logs and archive go (default var/demo or var/local)"
    add("--state-dir", type=Path, help=state)
    _add_exchange(parser)
    return parser


def _add_exchange(parser: argparse.ArgumentParser) -> None:
    """Which exchange to capture: a real one with a key, or the simulated one with a seed and faults."""
    add = parser.add_argument
    add(
        "--exchange",
        choices=("simulator", "prod", "demo"),
        default="simulator",
        help="which exchange to capture",
    )
    key_id, key_file = (
        os.environ.get(f"KALSHI_{name}") for name in ("API_KEY_ID", "PRIVATE_KEY_FILE")
    )
    add("--api-key-id", default=key_id or "", help="the real exchange's key id")
    add("--private-key-file", type=Path, default=key_file, help="its private key, PEM")
    seed = "the simulator's seed: the same seed makes the same markets"
    add("--seed", type=int, default=1, help=seed)
    faults = "what the simulator is to do wrong: a script of faults, or a seed of some by chance"
    add("--faults", metavar="FILE|SEED", default="", help=faults)
