"""What `status` shows to people: zones, slots, gaps, production, and the rows and bytes of every table."""

from typing import Any

from rich.console import Console
from rich.table import Table

from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import format_rfc3339
from services.status.ask import PRODUCTION

GAPS_SHOWN = 5


def show(found: dict[str, dict[str, Any]], console: Console) -> None:
    """Print the figures of every database; one that is away is a red line."""
    zones = {name: entry for name, entry in found.items() if name != PRODUCTION}
    console.print(_zones(zones))
    console.print(_slots(zones))
    for name, entry in zones.items():
        if "error" in entry:
            console.print(f"[red]zone {name} is away[/red] {entry['address']}: {entry['error']}")
        elif entry["gaps"]["newest"]:
            console.print(_gaps(name, entry["gaps"]))
    if PRODUCTION in found:
        _show_production(found[PRODUCTION], console)
    console.print(_tables(found))


def _show_production(production: dict[str, Any], console: Console) -> None:
    if "error" in production:
        console.print(
            f"[red]production is away[/red] {production['address']}: {production['error']}"
        )
    else:
        console.print(_production(production))
        console.print(_gatherers(production["gatherers"]))


def _zones(zones: dict[str, dict[str, Any]]) -> Table:
    table = _table(
        "Zones",
        "zone",
        "shards",
        "live slots",
        "markets wanted",
        "open lanes",
        "batches",
        "last batch s ago",
        "trade repairs",
        "books that disagree",
        "size",
    )
    for name, entry in zones.items():
        if "error" in entry:
            table.add_row(name, "away", style="red")
            continue
        table.add_row(
            name, str(entry["shards"]), str(entry["live_slots"]), f"{entry['wanted']:,} of {entry['markets']:,}",
            str(entry["open_lanes"]), _count(entry["tables"].get("ingest_batches")), _seconds(entry["last_batch_s"]),
            _repairs(entry), str(entry.get("books_disagree", "-")), _bytes(entry["bytes"]),
        )  # fmt: skip
    return table


def _slots(zones: dict[str, dict[str, Any]]) -> Table:
    table = _table(
        "Slots",
        "zone",
        "slots",
        "live",
        "moving",
        "unassigned",
        "plan",
        "lag ms p50 / p99",
        "volume",
    )
    for name, entry in zones.items():
        if "error" not in entry:
            slots, lag, planner = entry["slots"], entry["lag_ms"], entry["planner"] or {}
            plan = (
                f"epoch {planner.get('epoch', 0)}{'' if planner.get('held') else ', nobody plans'}"
            )
            table.add_row(
                name, _whole(slots["total"]), _whole(slots["live"]), _whole(slots["moving"]),
                _whole(slots["unassigned"]), plan, f"{_whole(lag['p50'])} / {_whole(lag['p99'])}",
                _share(entry["storage"]["share"]),
            )  # fmt: skip
    return table


def _gaps(name: str, gaps: dict[str, Any]) -> Table:
    """The newest gaps of a zone, and of which causes there were how many."""
    causes = ", ".join(f"{count:,} {cause}" for cause, count in gaps["causes"].items())
    table = _table(
        f"Newest gaps of {name} ({causes})", "until", "slot", "market", "cause", "detail"
    )
    for gap in gaps["newest"][:GAPS_SHOWN]:
        until = format_rfc3339(gap["ends_at"])
        table.add_row(until, gap["slot"], gap["ticker"] or "all", gap["reason"], gap["detail"])
    return table


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _production(entry: dict[str, Any]) -> Table:
    table = _table(
        "Production",
        "writer",
        "merge_no",
        "last merge s ago",
        "archive objects",
        "windows pending",
        "conflicts",
        "size",
    )
    table.add_row(
        "alive" if entry["has_writer"] else "none", f"{entry['merge_no'] or 0:,}", _seconds(entry["last_merge_s"]),
        str(entry["objects"]), str(entry["pending_windows"]), str(entry["conflicts"]), _bytes(entry["bytes"]),
    )  # fmt: skip
    return table


def _gatherers(entries: list[dict[str, Any]]) -> Table:
    table = _table(
        "Gatherers as production knows them", "zone", "identity", "status", "gap rows", "detail"
    )
    for entry in entries:
        style = None if entry["status"] == "ok" else "red"
        table.add_row(
            entry["zone"],
            entry["identity"],
            entry["status"],
            str(entry["gaps"]),
            entry["detail"] or "",
            style=style,
        )
    return table


def _tables(found: dict[str, dict[str, Any]]) -> Table:
    """Rows and bytes of each table of each database: facts first, in the order of the data model."""
    table = _table("Rows and bytes by table (~: estimated)", "table", *found)
    names = {name for entry in found.values() for name in entry.get("tables", ())}
    facts = [name for name in GATHERER_TABLES if name in names]
    for name in [*facts, *sorted(names - set(facts))]:
        cells = [_cell(entry.get("tables", {}).get(name)) for entry in found.values()]
        table.add_row(name, *cells)
    return table


def _cell(size: dict[str, Any] | None) -> str:
    return "-" if size is None else f"{_count(size)}  {_bytes(size['bytes']):>8}"


def _count(size: dict[str, Any] | None) -> str:
    return "-" if size is None else f"{'' if size['is_exact'] else '~'}{size['rows']:,}"


def _bytes(value: int) -> str:
    number = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1_000
    return f"{number:,.1f} TB"


def _repairs(entry: dict[str, Any]) -> str:
    """Say how many trades were healed and what waits or could not be healed."""
    if "repairs_open" not in entry:
        return "-"
    waiting = f", {entry['repairs_open']} open" if entry["repairs_open"] else ""
    unhealed = f", {entry['repairs_unhealed']} not healed" if entry["repairs_unhealed"] else ""
    return f"{entry['trades_healed']:,} trades{waiting}{unhealed}"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    return table


def _seconds(value: Any) -> str:
    return "-" if value is None else f"{float(value):,.1f}"
