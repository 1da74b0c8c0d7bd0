"""How the two commands speak: tables for eyes, one JSON document for programs."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from libs.store.coverage_records import Gatherer
from services.coverage.question import Question, iso

PIPE_WIDTH = 180


class Names:
    """Zones by the numbers production gave them; a zone with several databases has the number behind it."""

    def __init__(self, gatherers: Sequence[Gatherer]) -> None:
        counts = Counter(gatherer.zone for gatherer in gatherers)
        self._names: dict[int | None, str] = {
            g.gatherer: g.zone if counts[g.zone] == 1 else f"{g.zone} (#{g.gatherer})"
            for g in gatherers
        }
        self._names[None] = "production"

    def of(self, gatherer: int | None) -> str:
        """Return a gatherer's name; None: all of them together."""
        return self._names.get(gatherer, f"#{gatherer}")

    def of_set(self, gatherers: Sequence[int]) -> str:
        """Return the name of a set of gatherers."""
        return " + ".join(sorted(self.of(gatherer) for gatherer in gatherers))

    def in_order(self, gatherers: Iterable[int]) -> list[int]:
        """Return gatherers in the order of their names."""
        return sorted(gatherers, key=self.of)


class Show:
    """Standard output, in one of the two forms."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        self._console = Console(width=width, markup=False, highlight=False)

    def heading(self, question: Question) -> None:
        """Say what was asked."""
        market = question.market or "all markets"
        self.say(f"{market}, {iso(question.start)} to {iso(question.end)}")

    def say(self, text: str) -> None:
        """Print a line, or nothing where a document is wanted."""
        if not self._is_json:
            self._console.print(text, soft_wrap=True)

    def table(self, table: Table) -> None:
        """Print a table, or nothing where a document is wanted."""
        if not self._is_json:
            self._console.print(table)

    def document(self, found: dict[str, Any]) -> None:
        """Write the document where one is wanted."""
        if self._is_json:
            json.dump(found, sys.stdout, indent=1)
            sys.stdout.write("\n")
