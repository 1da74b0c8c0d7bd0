"""What the scenarios of the merge share: three whole zones, and the books that have to add up whatever was done."""

from dataclasses import dataclass

from libs.marketdata.tables import GATHERER_TABLES
from libs.store.merge_transaction import CONTENT_TABLES
from libs.store.pool import connect, map_store_errors
from services.local.stored import count_rows
from services.local.topology import PRODUCTION, ZONE_NAMES
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground, Terms
from tests.soak.scenario import Scenario

DEDUPLICATOR = "deduplicator"
CALM_S = 3.0
READY_S_MAX = 120.0
CAUGHT_UP_S_MAX = 120.0


@dataclass
class OfTheMerge(Scenario):
    """Base of the scenarios whose subject is the deduplicator; it stands on three zones with one connector each."""

    def terms(self) -> Terms:
        return Terms(connectors=1, zones=ZONE_NAMES)

    async def begin(self, ground: Ground) -> None:
        """Start all zones and wait until everybody is ready."""
        for zone in ground.run.zones:
            await ground.run.start_zone(zone)
        await ground.run.until_ready(ground.run.names(), READY_S_MAX)

    async def measure(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        return [*await self.figures(ground, evidence), *await the_books(ground)]

    async def figures(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        """Return what this scenario alone is judged by."""
        raise NotImplementedError


async def merge_no(ground: Ground, name: str = DEDUPLICATOR) -> int:
    """Return the number that a deduplicator has committed last; 0 while it cannot be asked."""
    return int((await ground.run.health(name)).get("merge_no") or 0)


async def until_merging(ground: Ground, name: str = DEDUPLICATOR) -> float:
    """Wait until a deduplicator commits; return how long that took, seconds."""
    before = await merge_no(ground, name)

    async def merges() -> bool:
        return await merge_no(ground, name) > before

    return await ground.until(merges, CAUGHT_UP_S_MAX, f"{name} merges")


async def until_caught_up(ground: Ground) -> float:
    """Wait until batches committed after now are merged, of every zone; return how long that took, seconds."""
    asked = ground.clock.now()

    async def caught_up() -> bool:
        zones = (await ground.run.health(DEDUPLICATOR)).get("gatherers", {}).values()
        return bool(zones) and all((zone["merged_at"] or 0) > asked for zone in zones)

    return await ground.until(caught_up, CAUGHT_UP_S_MAX, "every zone is merged up to the present")


async def events(ground: Ground, kind: str) -> list[str]:
    """Return the details of production's event rows of a kind."""
    query = "select detail from operational_events where kind = $1 order by at"
    async with connect(ground.run.target(PRODUCTION)) as conn:
        with map_store_errors():
            return [row["detail"] for row in await conn.fetch(query, kind)]


async def the_books(ground: Ground) -> list[Measured]:
    """Compare rows, merges, coverage, cursors and ledgers; asked when every process has ended."""
    async with connect(ground.run.target(PRODUCTION)) as conn:
        rows = await count_rows(conn, list(GATHERER_TABLES))
        with map_store_errors():
            merges = await conn.fetch(
                "select merge_no, rows_inserted from merges order by merged_at"
            )
            facts = await conn.fetch(
                "select table_name, sum(facts)::bigint as facts from coverage where not is_late group by 1"
            )
            cursors = await conn.fetch("select lane, batch_no from sync_cursors")
    numbers = [row["merge_no"] for row in merges]
    inserted = sum(row["rows_inserted"] for row in merges)
    counted = {row["table_name"]: row["facts"] for row in facts}
    stored = {name: rows[name] for name in CONTENT_TABLES if rows[name]}
    ledger = await _ledger(ground)
    merged = {row["lane"]: row["batch_no"] for row in cursors}
    skipped = [lane for lane, last in ledger.items() if merged.get(lane, 0) < last]
    total = sum(rows.values())
    return [
        Measured("merge_no rises from merge to merge", f"{len(numbers):,} merges", "always", numbers == sorted(set(numbers))),
        Measured("rows that the merges inserted", f"{inserted:,}", f"{total:,} rows", inserted == total),
        Measured("facts that coverage counts", f"{counted}", f"{stored}", counted == stored),
        Measured("lanes read to their end", f"{len(ledger) - len(skipped)}", f"{len(ledger)}", not skipped and bool(ledger)),
    ]  # fmt: skip


async def _ledger(ground: Ground) -> dict[object, int]:
    found: dict[object, int] = {}
    for zone in ground.run.zones:
        async with connect(ground.run.target(zone)) as conn:
            with map_store_errors():
                rows = await conn.fetch(
                    "select lane, max(batch_no) as last from ingest_batches group by lane"
                )
        found |= {row["lane"]: row["last"] for row in rows}
    return found
