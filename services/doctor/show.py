"""The report: a table for eyes, JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.doctor.findings import Finding, State, count, exit_status

STYLES: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}
_PIPE_WIDTH = 160


def console() -> Console:
    """Return the console of standard output; a pipe is as wide as a long line."""
    return Console(
        width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, highlight=False
    )


def show_table(out: Console, asked: str, findings: Sequence[Finding], seconds: float) -> None:
    """Print every finding, and beneath what is not ok what to do; asked: whom, in a word."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        style = STYLES[finding.state]
        found = Text(finding.found, style="dim" if finding.state == "skipped" else "")
        if finding.advice:
            found.append(f"\n-> {finding.advice}", style=style)
        table.add_row(Text(finding.state, style=style), finding.check, found)
    out.print(Text(f"kalshi-data doctor: {asked}", style="bold"))
    out.print(table)
    out.print(_summary(findings, seconds))


def show_json(
    asked: Mapping[str, Any], findings: Sequence[Finding], seconds: float, now: str
) -> None:
    """Write one JSON document to standard output, with whom was asked at its top; now: RFC 3339."""
    document = {
        **asked,
        "checked_at": now,
        "seconds": round(seconds, 3),
        "exit_status": exit_status(findings),
        "checks": [finding._asdict() for finding in findings],
    }
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


def _summary(findings: Sequence[Finding], seconds: float) -> Text:
    states: tuple[State, ...] = ("ok", "warn", "fail", "skipped")
    text = Text()
    for state in states:
        number = count(findings, state)
        text.append(f"{number} {state}", style=STYLES[state] if number else "dim")
        text.append(", " if state != "skipped" else f"; {seconds:.1f} s")
    return text
