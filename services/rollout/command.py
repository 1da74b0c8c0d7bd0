"""`kalshi-data rollout RELEASE CHART ...`: a helm upgrade, zone by zone."""

import asyncio
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from libs.marketdata.units import SECOND, format_rfc3339
from libs.runtime.clock import Clock, SystemClock
from services.rollout.cluster import Cluster
from services.rollout.errors import RolloutError, WordsWrong
from services.rollout.fingerprint import fingerprint
from services.rollout.helm import Helm, upgrade_words
from services.rollout.plan import Step
from services.rollout.progress import advice
from services.rollout.roll import LOOK_S, Rollout
from services.rollout.tools import Tool
from services.rollout.words import Wanted, parse

EXIT_OK, EXIT_STOPPED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
PIPE_WIDTH = 160


def main(argv: Sequence[str], clock: Clock | None = None, look_s: float = LOOK_S) -> int:
    """Run it; return 0 done, 1 stopped, 2 wrong words, 130 interrupted.

    Args:
        look_s: seconds between two looks at a zone.
    """
    try:
        wanted = parse(argv)
        rollout_of = fingerprint(wanted.chart, wanted.helm)
    except WordsWrong as error:
        sys.stderr.write(f"rollout: {error}\n")
        return EXIT_USAGE
    except OSError as error:
        sys.stderr.write(f"rollout: {error.filename} cannot be read: {error.strerror}\n")
        return EXIT_USAGE
    clock = clock or SystemClock()
    out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False)

    def say(line: str, style: str = "") -> None:
        moment = format_rfc3339(clock.now() // SECOND * SECOND)
        out.print(Text.assemble((moment, "dim"), "  ", (line, style)))

    rollout = Rollout(
        Helm(Tool("helm", wanted.common_helm), wanted.release),
        Cluster(Tool("kubectl", wanted.common_kubectl), wanted.release),
        wanted,
        rollout_of,
        clock,
        say,
        look_s,
    )
    return asyncio.run(_interruptible(rollout, out))


async def _interruptible(rollout: Rollout, out: Console) -> int:
    """Run until done, stopped, or told to end; a helm that runs is ended in order."""
    work = asyncio.create_task(_run(rollout, out), name="rollout")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        _stopped(rollout, out, "interrupted")
        return EXIT_INTERRUPTED


async def _run(rollout: Rollout, out: Console) -> int:
    try:
        first = await rollout.first()
        steps = rollout.steps(first)
        _show_steps(rollout, steps, out)
        if rollout.wanted.steps_only:
            return EXIT_OK
        await rollout.run(first)
    except RolloutError as error:
        _stopped(rollout, out, str(error))
        return EXIT_STOPPED
    held = sorted(rollout.wanted.held & set(rollout.progress.zones))
    done = f"done; still held: {', '.join(held)}" if held else "done: every zone is new"
    rollout.say(done)
    return EXIT_OK


def _show_steps(rollout: Rollout, steps: Sequence[Step], out: Console) -> None:
    wanted, start = rollout.wanted, rollout.progress.start
    again = "" if start.revision is None else f", goes on behind revision {start.revision}"
    out.print(Text(f"rollout {rollout.fingerprint} of {wanted.release}{again}", style="bold"))
    for number, step in enumerate(steps, start=1):
        words = upgrade_words(wanted.release, wanted.chart, wanted.helm, step.released)
        out.print(f"{number}. helm {' '.join(_hidden(wanted, words))}")
        out.print(Text(f"   then: {_then(wanted, step)}", style="dim"))


def _then(wanted: Wanted, step: Step) -> str:
    if step.released is None:
        return "all workloads there; ConfigMaps that nothing uses removed but for the last three"
    if not step.zone:
        return "migrations done"
    demands = wanted.demands
    return (
        f"database of {step.zone} there, its TimescaleDB updated, its other pods there; all slots live, no gap,"
        f" lag p99 below {demands.lag_p99_ms_max / 1000:g} s, for {demands.sound_s:g} s"
    )


def _hidden(wanted: Wanted, words: Sequence[str]) -> list[str]:
    """The words as they may be seen: what --password has is not."""
    shown = list(words)
    for number, word in enumerate(shown[:-1]):
        if word == "--password" and word in wanted.helm:
            shown[number + 1] = "***"
    return shown


def _stopped(rollout: Rollout, out: Console, why: str) -> None:
    out.print(Text(f"stopped: {why}", style="bold red"))
    for line in advice(rollout.wanted, rollout.progress):
        out.print(f"  {line}")
