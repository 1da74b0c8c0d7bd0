"""Plays scenarios one after the other on one ground, then takes the verdict and every scenario's figures."""

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from services.local.report import print_verdict
from services.local.verdict import Verdict
from tests.soak.evidence import Measured, gather_evidence
from tests.soak.ground import Terms, running_ground
from tests.soak.scenario import Scenario


@dataclasses.dataclass(frozen=True, slots=True)
class Played:
    """What came of it."""

    verdict: Verdict
    figures: dict[str, list[Measured]]

    @property
    def failures(self) -> list[str]:
        """One line for each thing that does not hold."""
        return self.verdict.reasons() + [
            f"{name}: {figure.what}: {figure.value}, wanted {figure.bound}"
            for name, figures in self.figures.items()
            for figure in figures
            if not figure.holds
        ]


async def play(
    scenarios: Sequence[Scenario], directory: Path, console: Console, *, terms: Terms | None = None, is_kept: bool = True
) -> Played:  # fmt: skip
    """Play them; the first one's terms stand unless others are given.

    Raises:
        TimeoutError: all of it took longer than the scenarios' time-outs together.
        AssertionError, ProcessFailed: something did not happen in time, or a process failed.
    """
    async with asyncio.timeout(sum(scenario.timeout_s for scenario in scenarios)):
        async with running_ground(
            terms or scenarios[0].terms(), directory, console, is_kept=is_kept
        ) as ground:
            await scenarios[0].begin(ground)
            for scenario in scenarios:
                console.print(f"{scenario.name}: {scenario}")
                await scenario.act(ground)
            verdict = await ground.finish()
            evidence = await gather_evidence(ground, verdict)
            figures = {s.name: await s.measure(ground, evidence) for s in scenarios}
    return Played(verdict, figures)


def print_played(played: Played, console: Console) -> bool:
    """Print verdict and figures; True when everything holds."""
    print_verdict(played.verdict, console)
    for name, figures in played.figures.items():
        table = Table(title=name, title_justify="left")
        for heading in ("figure", "measured", "bound", "holds"):
            table.add_column(heading)
        for figure in figures:
            style = None if figure.holds else "red"
            table.add_row(
                figure.what,
                figure.value,
                figure.bound,
                "yes" if figure.holds else "NO",
                style=style,
            )
        console.print(table)
    return not played.failures
