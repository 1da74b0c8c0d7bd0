"""The verdict, printed: facts by table, coverage and gaps by zone, books, archive, and one line that decides."""

from rich.console import Console
from rich.table import Table

from libs.marketdata.units import SECOND
from services.local.verdict import Verdict

EXIT_HOLDS, EXIT_FAILS = 0, 1


def print_verdict(verdict: Verdict, console: Console) -> int:
    """Print; return the exit status: 0 only if everything holds."""
    console.print(_facts(verdict))
    console.print(_zones(verdict))
    if verdict.archive:
        console.print(_archive(verdict))
    same = verdict.books_compared - len(verdict.books_differing)
    unproved = (
        f" ({n} more have a gap behind their last snapshot)"
        if (n := verdict.books_unproved)
        else ""
    )
    console.print(
        f"books rebuilt from production equal the exchange's: {same} of {verdict.books_compared}{unproved}"
    )
    console.print(
        f"snapshots equal the book they were taken of: {verdict.snapshots_equal} of {verdict.snapshots}"
    )
    reasons = verdict.reasons()
    for reason in reasons:
        console.print(f"[red]fails[/red] {reason}", markup=True, soft_wrap=True)
    if reasons:
        console.print("[bold red]VERDICT: does not hold[/bold red]")
        return EXIT_FAILS
    console.print("[bold green]VERDICT: holds[/bold green]")
    return EXIT_HOLDS


def _facts(verdict: Verdict) -> Table:
    table = _table("What the exchange published against what production holds", "table", "truth", "stored", "missing",
                   "extra", "unsound")  # fmt: skip
    for row in verdict.tables:
        numbers = (row.truth, row.stored, row.missing, row.extra, row.unsound)
        table.add_row(row.table, *(f"{n:,}" for n in numbers), style=None if row.holds else "red")
    return table


def _zones(verdict: Verdict) -> Table:
    table = _table("Who listened to the order books: share of the markets' lives, and the gaps", "who", "listened %",
                   "gaps", "longest s", "without cause", "causes")  # fmt: skip
    for zone in verdict.zones:
        table.add_row(
            zone.name, f"{100 * zone.share:.2f}", str(zone.gaps), f"{zone.longest / SECOND:.1f}",
            str(len(verdict.loose_gaps.get(zone.name, []))), zone.causes,
        )  # fmt: skip
    return table


def _archive(verdict: Verdict) -> Table:
    table = _table("Archive", "table", "rows in production", "rows in Parquet")
    for name, (stored, archived) in verdict.archive.items():
        style = None if stored == archived else "red"
        table.add_row(name, f"{stored:,}", f"{archived:,}", style=style)
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number > 0 and heading != "causes" else "left")
    return table
