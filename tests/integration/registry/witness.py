"""What a simulated exchange and a zone's database say together of a run: what was lost, unheard, and how many connected."""

import json
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from libs.marketdata.listening import ORDERBOOK_CHANNEL
from libs.marketdata.rows import ROW_TYPES
from services.local.truth import read_market_journal
from services.local.verdict import judge
from services.simulator.journal import Journal
from tests.integration.registry.world import Zone
from tests.simulation.production import merge

TABLES = (
    "orderbook_deltas", "trades", "tickers", "market_lifecycle", "orderbook_snapshots", "snapshot_cuts",
    "listen_ranges", "listen_opened", "listen_closed", "gaps",
)  # fmt: skip
NAME = "a"


@dataclass(slots=True)
class Committed:
    """What the zone has committed, as a database of the union."""

    tables: dict[str, list[Any]]

    def rows(self, table: str) -> list[Any]:
        return self.tables[table]


async def committed(zone: Zone) -> Committed:
    """Read every row of the zone."""
    tables = {}
    for name in TABLES:
        row_type: Any = ROW_TYPES[name]
        found = await zone.conn.fetch(f"select {', '.join(row_type._fields)} from {name}")
        tables[name] = [row_type(*row) for row in found]
    return Committed(tables)


def lost_deltas(
    zone: Zone, found: Committed, wanted: Container[str], since: int, until: int
) -> list[Any]:
    """Return wanted markets' deltas of that span (exchange time) that were published and are not there; nothing may be there
    twice.
    """
    truth = read_market_journal(_lines(zone.simulator.market_journal))
    production = merge({NAME: found})
    stored = production.delta_facts()
    verdict = judge(
        ORDERBOOK_CHANNEL, truth.deltas(), stored, production.index(NAME, ORDERBOOK_CHANNEL)
    )
    assert verdict.holds, verdict
    kept = list(stored)
    lost = []
    for fact in truth.deltas():
        if fact.ticker not in wanted or not since <= fact.moment < until:
            continue
        if fact in kept:
            kept.remove(fact)
        else:
            lost.append(fact)
    return lost


def most_connections(zone: Zone) -> tuple[int, int]:
    """Return the most connections that were open at once, and how many more were refused."""
    most = opened = refused = 0
    for line in _lines(zone.simulator.session_journal):
        kind = json.loads(line)["kind"]
        opened += (kind == "opened") - (kind == "closed")
        most = max(most, opened)
        refused += kind == "refused"
    return most, refused


def _lines(journal: Journal) -> list[bytes]:
    journal.flush()
    return journal.path.read_bytes().splitlines()
