"""The account's connections: all the zone's connectors together never have one too many, whatever they split and move."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from libs.runtime.sections import SlotSettings
from libs.store.connections import count_connections
from libs.store.pool import Target
from tests.integration.connector.world import Zone, running_zone

LIMIT = 8


def _open_at_once(zone: Zone) -> tuple[int, int]:
    """Return the most connections that were open at once, and how many more were refused."""
    journal = zone.simulator.session_journal
    journal.flush()
    most = opened = refused = 0
    for line in journal.path.read_bytes().splitlines():
        kind = json.loads(line)["kind"]
        opened += (kind == "opened") - (kind == "closed")
        most, refused = max(most, opened), refused + (kind == "refused")
    return most, refused


async def test_slots_that_split_and_move_stay_within_the_accounts_connections(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Two slots want a second connection each, and move while they have it; one connection is left for that, and no more."""
    slots = SlotSettings(2, 1, 1, 1, LIMIT)
    async with (
        asyncio.timeout(120),
        running_zone(
            gatherer_db, tmp_path, slots=slots, markets=16, rate=100.0, subscription_markets_max=5,
            connections_max=LIMIT,
        ) as zone,
    ):  # fmt: skip
        own = replace(zone.settings.connector, extra_connections_max=2)
        zone.settings = replace(zone.settings, connector=own)
        async with zone.connector(grace_s=25) as first:
            await zone.until(lambda: first.health.document()["connections"] == LIMIT - 1)
            async with zone.connector(shard="connector-a-2", grace_s=0.1):
                first.stop.set()
                moved = "select count(*) >= 3 from slot_assignments where state = 'live' and shard <> 'connector-a-1'"
                await zone.until(lambda: zone.conn.fetchval(moved))
                assert await count_connections(zone.conn) <= LIMIT
                most = _open_at_once(zone)
    assert most == (LIMIT, 0)
