"""Plays scenarios one after the other, as few installations as they allow, and says how each ended."""

import asyncio
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tests.cluster.errors import CommandFailed, NotInTime, Skipped
from tests.cluster.faults import NoFaults
from tests.cluster.figures import Figure, failures
from tests.cluster.ground import Ground
from tests.cluster.scenario import Scenario

HOLDS, FAILS, SKIPPED, NOT_PLAYED = "holds", "does not hold", "SKIPPED", "not played"
CLEAN_S_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Played:
    """One scenario's end: its verdict, how long it took (seconds), and why."""

    scenario: Scenario
    verdict: str
    seconds: float
    why: str = ""

    @property
    def is_good(self) -> bool:
        return self.verdict in (HOLDS, SKIPPED)


async def play_all(scenarios: Sequence[Scenario], ground: Ground, console: Console, minutes: float) -> list[Played]:  # fmt: skip
    """Play them within so many minutes in all; what there is no time for is named."""
    end = time.monotonic() + 60 * minutes
    results = []
    for scenario in scenarios:
        console.rule(f"{scenario.number}: {scenario.title}")
        left = end - time.monotonic()
        if left <= 0:
            results.append(Played(scenario, NOT_PLAYED, 0.0, f"{minutes:g} minutes are over"))
            continue
        results.append(await _play(scenario, ground, console, min(left, scenario.timeout_s)))
    return results


async def _play(scenario: Scenario, ground: Ground, console: Console, timeout_s: float) -> Played:
    begun = time.monotonic()

    def ended(verdict: str, why: str = "") -> Played:
        took = time.monotonic() - begun
        words = f"scenario {scenario.number}: {verdict}, {took:.0f} s"
        console.print(f"{words}: {why}" if why else words, soft_wrap=True)
        return Played(scenario, verdict, took, why)

    if scenario.breaks and isinstance(ground.faults, NoFaults):
        return ended(SKIPPED, "it breaks nodes, and nobody here can (TESTBED, or kind with docker)")
    try:
        async with asyncio.timeout(timeout_s):
            if ground.installed and (scenario.fresh or not scenario.zones):
                await ground.remove()
            if scenario.zones:
                await ground.ensure(scenario.zones)
            figures = await scenario.play(ground)
    except Skipped as error:
        return ended(SKIPPED, str(error))
    except (CommandFailed, NotInTime, TimeoutError) as error:
        why = str(error) or f"not done in {timeout_s:.0f} s"
        return ended(FAILS, await _wreck(ground, console, why))
    except Exception as error:  # noqa: BLE001 - one scenario's own fault must not cost the others their turn
        console.print(traceback.format_exc(), soft_wrap=True, markup=False)
        return ended(FAILS, await _wreck(ground, console, f"{type(error).__name__}: {error}"))
    console.print(table_of(scenario, figures))
    wrong = failures(figures)
    if wrong:
        return ended(FAILS, await _wreck(ground, console, "; ".join(wrong)))
    return ended(HOLDS)


async def _wreck(ground: Ground, console: Console, why: str) -> str:
    """Say how things stand, and take the release away, so that what follows begins anew."""
    for line in await ground.troubles():
        console.print(f"  {line}", soft_wrap=True, markup=False)
    await clean(ground, console)
    return why


async def clean(ground: Ground, console: Console) -> bool:
    """Leave nothing; False when something could not be removed, which is said."""
    try:
        async with asyncio.timeout(CLEAN_S_MAX):
            await ground.remove()
    except (CommandFailed, TimeoutError) as error:
        console.print(f"not removed: {error}", soft_wrap=True, markup=False)
        return False
    return True


def table_of(scenario: Scenario, figures: Sequence[Figure]) -> Table:
    """Return the figures, each with its bound."""
    table = Table(title=f"Scenario {scenario.number}", title_justify="left")
    for heading in ("figure", "measured", "bound", "holds"):
        table.add_column(heading, overflow="fold")
    for figure in figures:
        style = None if figure.holds else "red"
        words = "yes" if figure.holds else "NO"
        table.add_row(figure.what, figure.value, figure.bound, words, style=style)
    return table


def summary_of(results: Sequence[Played]) -> Table:
    """Return every scenario's end."""
    table = Table(title="All", title_justify="left")
    for heading in ("scenario", "verdict", "seconds", "why"):
        table.add_column(heading, overflow="fold")
    for played in results:
        style = None if played.verdict == HOLDS else "yellow" if played.is_good else "red"
        number = str(played.scenario.number)
        table.add_row(number, played.verdict, f"{played.seconds:.0f}", played.why, style=style)
    return table
