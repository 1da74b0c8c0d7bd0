"""`python -m tests.cluster [SCENARIO ...]`: the platform on the cluster that KUBECONFIG names, scenario by scenario.

Exit status: 0 when everything played holds (what was skipped is named), 1 when something does not, 2 for wrong usage,
130 after Ctrl-C; the release is removed in every case.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from libs.runtime.clock import SystemClock
from libs.telemetry import logging
from tests.cluster.errors import CommandFailed, Skipped
from tests.cluster.faults import find_faults, zones_of
from tests.cluster.ground import Ground
from tests.cluster.helm import find_helms
from tests.cluster.images import Builder
from tests.cluster.kube import Kube
from tests.cluster.run import HOLDS, clean, play_all, summary_of
from tests.cluster.scenarios.install import Install
from tests.cluster.scenarios.merging import Merging
from tests.cluster.scenarios.no_api import NoApi
from tests.cluster.scenarios.outages import Outages
from tests.cluster.scenarios.reach import Reach
from tests.cluster.scenarios.rolling import Rolling
from tests.cluster.scenarios.scale import Scale
from tests.cluster.scenarios.upgrade import Upgrade
from tests.cluster.waiting import Say

ORDER = (Install(), Reach(), Scale(), NoApi(), Merging(), Outages(), Upgrade(), Rolling())
"""As few installations as can be: most take up what the one before left, the last one wants a single zone."""
EXIT_HOLDS, EXIT_FAILS, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
WIDTH = 160
MINUTES = 60.0
NAMESPACE = "kalshi-data-test"


def main() -> int:
    """Play what was asked for; return the exit status."""
    arguments = _parser().parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    logging.configure("text", "warning", "cluster", "")
    return asyncio.run(_interruptible(arguments, console))


async def _interruptible(arguments: argparse.Namespace, console: Console) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    work = asyncio.create_task(_run(arguments, console), name="cluster")
    interrupted = asyncio.create_task(stop.wait(), name="wait-for-stop")
    await asyncio.wait((work, interrupted), return_when=asyncio.FIRST_COMPLETED)
    interrupted.cancel()
    if not work.done():
        console.print("stopping: what was broken is mended, the release removed ...")
        work.cancel()
        await asyncio.wait((work,))
        if work.cancelled():
            return EXIT_INTERRUPTED
    return work.result()


async def _run(arguments: argparse.Namespace, console: Console) -> int:
    begun = time.monotonic()

    def say(text: str) -> None:
        console.print(f"  {time.monotonic() - begun:7.1f}  {text}", soft_wrap=True, markup=False)

    with tempfile.TemporaryDirectory(prefix="kalshi-data-cluster-") as scratch:
        try:
            ground = await _ground(arguments, Path(scratch), say)
        except (CommandFailed, Skipped) as error:
            console.print(f"no cluster to play on: {error}", soft_wrap=True, markup=False)
            return EXIT_USAGE
        by_number = {scenario.number: scenario for scenario in ORDER}
        scenarios = [by_number[number] for number in arguments.scenarios or by_number]
        is_clean = True
        try:
            results = await play_all(scenarios, ground, console, arguments.minutes)
        finally:
            if not arguments.keep:
                is_clean = await clean(ground, console)
    console.print(summary_of(results))
    held = sum(played.verdict == HOLDS for played in results)
    took = time.monotonic() - begun
    console.print(f"{held} of {len(results)} scenarios hold, {took / 60:.1f} minutes in all")
    return EXIT_HOLDS if is_clean and all(played.is_good for played in results) else EXIT_FAILS


async def _ground(arguments: argparse.Namespace, scratch: Path, say: Say) -> Ground:
    """Look at the cluster, and bring the images there. Raises CommandFailed, Skipped."""
    kube, clock = Kube(arguments.namespace), SystemClock()
    helms = await find_helms()
    zones = zones_of((await kube.get("nodes"))["items"])
    faults = await find_faults([node for _, node in zones])
    labels = [label for label, _ in zones]
    say(
        f"zones {', '.join(labels)}; helm {', '.join(helm.version for helm in helms)}; faults by {faults.name}"
    )
    builder = Builder(faults, arguments.registry, arguments.tag, say)
    images = await builder.all()
    return Ground(kube, helms, faults, labels, images, builder, clock, say, scratch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    titles = "; ".join(f"{s.number}: {s.title}" for s in sorted(ORDER, key=lambda s: s.number))
    add = parser.add_argument
    add(
        "scenarios",
        nargs="*",
        type=_number,
        metavar="SCENARIO",
        help=titles,
    )
    add(
        "--namespace",
        default=NAMESPACE,
        help="it is made, and removed at the end (default %(default)s)",
    )
    add(
        "--registry",
        default="",
        help="where the images are; default: they are built here, for testbed or kind",
    )
    add("--tag", default="", help="their tag in that registry")
    add("--minutes", type=float, default=MINUTES, help="for everything (default %(default)g)")
    add("--keep", action="store_true", help="leave the release there at the end")
    return parser


def _number(word: str) -> int:
    """Read a scenario's number; argparse's own choices would refuse that none is named."""
    if word not in {str(scenario.number) for scenario in ORDER}:
        raise argparse.ArgumentTypeError(f"{word}: scenarios are 1 to {len(ORDER)}")
    return int(word)


if __name__ == "__main__":
    raise SystemExit(main())
