"""`kalshi-data status`: what a running platform is doing, read from its databases, each of which may be away."""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, LiteralString

from rich.console import Console
from rich.table import Table

from libs.marketdata.tables import GATHERER_TABLES
from libs.runtime.last_run import last_run_config
from libs.runtime.sections import DEDUPLICATOR_FILE, GathererSource, StoreSettings
from libs.runtime.settings import ConfigInvalid, load_settings
from libs.store.errors import StoreError
from libs.store.pool import Connection, Target, connect, map_store_errors
from libs.store.schema import read_level
from libs.store.table_sizes import read_table_sizes

EXIT_OK, EXIT_AWAY, EXIT_CONFIG = 0, 1, 2
PIPE_WIDTH = 160

_ZONE: LiteralString = """
SELECT (SELECT identity::text FROM gatherer_identity) AS identity,
       (SELECT count(*) FROM lanes WHERE closed_at IS NULL) AS open_lanes,
       (SELECT extract(epoch FROM clock_timestamp() - committed_at) FROM ingest_batches
         ORDER BY batch_id DESC LIMIT 1) AS last_batch_s,
       (SELECT count(*) FROM shards WHERE expires_at > clock_timestamp()) AS shards,
       (SELECT count(DISTINCT slot) FROM slot_assignments WHERE state = 'live') AS live_slots,
       (SELECT count(*) FROM markets WHERE wanted) AS wanted,
       (SELECT count(*) FROM markets) AS markets,
       (SELECT pg_database_size(current_database())) AS bytes
"""
_UPKEEP: LiteralString = """
SELECT (SELECT count(*) FROM trade_repairs WHERE state = 'open') AS repairs_open,
       (SELECT count(*) FROM trade_repairs WHERE state IN ('partial', 'failed')) AS repairs_unhealed,
       (SELECT coalesce(sum(trades_stored), 0)::bigint FROM trade_repairs) AS trades_healed,
       (SELECT count(*) FROM book_checks WHERE outcome = 'disagree') AS books_disagree,
       (SELECT max(checked_at)::text FROM book_checks WHERE outcome = 'disagree') AS books_disagreed_at
"""
"""What the poller remembers of the last seven days; of databases of level 2 and later."""
_PRODUCTION: LiteralString = """
SELECT (SELECT merge_no FROM writer_lease) AS merge_no,
       (SELECT expires_at > clock_timestamp() FROM writer_lease) AS has_writer,
       (SELECT extract(epoch FROM clock_timestamp() - max(merged_at)) FROM merges) AS last_merge_s,
       (SELECT count(*) FROM archive_manifests) AS objects,
       (SELECT count(*) FROM archive_pending) AS pending_windows,
       (SELECT count(*) FROM conflicts) AS conflicts,
       (SELECT pg_database_size(current_database())) AS bytes
"""
_GATHERERS: LiteralString = """
SELECT zone, identity::text AS identity, status, detail, (SELECT count(*) FROM gaps p WHERE p.gatherer = g.gatherer) AS gaps
  FROM gatherers g ORDER BY zone, gatherer
"""


@dataclass(frozen=True)
class StatusSettings:
    """What `status` reads from config/deduplicator.yaml, the one file that names every database."""

    gatherers: tuple[GathererSource, ...]
    """The zones."""
    production: StoreSettings
    """The production database."""


def main(argv: list[str]) -> int:
    """Print; return 0, 1 when a database is away, 2 when the configuration is not usable."""
    arguments = _parser().parse_args(argv)
    config = arguments.config or last_run_config()
    try:
        settings = load_settings(StatusSettings, config, foreign=DEDUPLICATOR_FILE).value
    except ConfigInvalid as error:
        sys.stderr.write(
            "status: the configuration is not usable (--config FILE names the deduplicator's):\n"
        )
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        return EXIT_CONFIG
    found = asyncio.run(_read(settings))
    if arguments.json:
        json.dump(found, sys.stdout, indent=1, default=str)
        sys.stdout.write("\n")
    else:
        _print(found, Console(width=None if sys.stdout.isatty() else PIPE_WIDTH))
    away = [name for name, entry in found.items() if "error" in entry]
    return EXIT_AWAY if away else EXIT_OK


async def _read(settings: StatusSettings) -> dict[str, dict[str, Any]]:
    """Ask every database at once; one that is away has an `error`."""
    names = [*(source.zone for source in settings.gatherers), "production"]
    targets = [
        *(source.store.target() for source in settings.gatherers),
        settings.production.target(),
    ]
    asked = [_ask(t, is_production=n == "production") for n, t in zip(names, targets, strict=True)]
    return dict(zip(names, await asyncio.gather(*asked), strict=True))


async def _ask(target: Target, *, is_production: bool) -> dict[str, Any]:
    try:
        async with connect(target, "kalshi-data status") as conn:
            with map_store_errors():
                return await _figures(conn, is_production=is_production)
    except StoreError as error:
        return {"address": target.address, "error": str(error)}


async def _figures(conn: Connection, *, is_production: bool) -> dict[str, Any]:
    row = await conn.fetchrow(_PRODUCTION if is_production else _ZONE)
    found = dict(row) if row else {}
    if is_production:
        found["gatherers"] = [dict(entry) for entry in await conn.fetch(_GATHERERS)]
    else:
        level = await read_level(conn)
        if level is not None and level[0] >= 2:
            row = await conn.fetchrow(_UPKEEP)
            found |= dict(row) if row else {}
    sizes = await read_table_sizes(conn)
    found["tables"] = {name: asdict(size) for name, size in sizes.items()}
    return found


def _print(found: dict[str, dict[str, Any]], console: Console) -> None:
    zones = {name: entry for name, entry in found.items() if name != "production"}
    console.print(_zones(zones))
    for name, entry in zones.items():
        if "error" in entry:
            console.print(f"[red]zone {name} is away[/red] {entry['address']}: {entry['error']}")
    production = found["production"]
    if "error" in production:
        console.print(
            f"[red]production is away[/red] {production['address']}: {production['error']}"
        )
    else:
        console.print(_production(production))
        console.print(_gatherers(production["gatherers"]))
    console.print(_tables(found))


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalshi-data status", description=__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="the deduplicator's YAML file; default: KALSHI_DATA_CONFIG, else that of the last local run",
    )
    parser.add_argument("--json", action="store_true", help="as JSON instead of tables")
    return parser
