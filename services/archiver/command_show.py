"""How the archive's commands speak: tables and progress for eyes, one JSON document for programs."""

import argparse
import datetime as dt
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from libs.marketdata.units import SECOND

_PIPE_WIDTH = 160


class Steps(Protocol):
    """Hears how far a long work is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """`done` of `total` steps are through; `what` is at work."""


class Output:
    """Standard output for the result, standard error for progress, and for it only where somebody looks."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        self._console = Console(width=width, markup=False, highlight=False)

    def table(self, table: Table) -> None:
        """Print a table, or nothing where a document is wanted."""
        if not self.is_json:
            self._console.print(table)

    def say(self, text: str, style: str = "") -> None:
        """Print a line, or nothing where a document is wanted."""
        if not self.is_json:
            self._console.print(text, style=style or None, soft_wrap=True)

    def document(self, found: dict[str, Any]) -> None:
        """Write the document where one is wanted."""
        if self.is_json:
            json.dump(found, sys.stdout, indent=1, default=str)
            sys.stdout.write("\n")

    @contextmanager
    def progress(self, title: str) -> Iterator[Steps]:
        """Show a bar while the block works."""
        errors = Console(stderr=True, markup=False, highlight=False)
        with Progress(
            TextColumn(title), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(), TextColumn("{task.fields[what]}"),
            console=errors, transient=True, disable=not errors.is_terminal,
        ) as bar:  # fmt: skip
            task = bar.add_task(title, total=None, what="")

            def step(done: int, total: int, what: str = "") -> None:
                bar.update(task, completed=done, total=total, what=what)

            yield step


def new_table(title: str, *headings: str, texts: int = 1) -> Table:
    """Return an empty table whose first `texts` columns are text and the others figures."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < texts else "right", overflow="fold")
    return table


def moment_of(text: str) -> int:
    """Read a date or a time (UTC where no zone is given) as microseconds.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a date or time: {text!r}") from error
    moment = moment.replace(tzinfo=moment.tzinfo or dt.UTC)
    return (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(microseconds=1)


def show_moment(micros: int | None) -> str:
    """Write microseconds as a UTC time with as many digits as it has; what no calendar names stays a number."""
    if micros is None:
        return "-"
    try:
        moment = dt.datetime.fromtimestamp(micros // SECOND, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{micros} us"
    fraction = micros % SECOND
    return f"{moment:%Y-%m-%dT%H:%M:%S}" + (f".{fraction:06d}".rstrip("0") if fraction else "")


def show_bytes(count: int) -> str:
    """Write a number of bytes for eyes."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1_000
    return f"{number:,.1f} TB"
