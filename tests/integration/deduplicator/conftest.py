"""Three gatherers and production."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from libs.store.pool import Connection, Target, connect, open_pool
from tests.integration.deduplicator.world import Zone
from tests.support.postgres import NewDatabase


@dataclass
class Databases:
    """Targets, a writer for each zone, and a connection to production."""

    gatherers: dict[str, Target]
    production: Target
    zones: dict[str, Zone]
    conn: Connection


@pytest.fixture
def targets(new_database: NewDatabase) -> tuple[dict[str, Target], Target]:
    """Fresh databases of zones a, b, c and production."""
    return {zone: new_database("gatherer", zone) for zone in "abc"}, new_database("production")


@pytest.fixture
async def databases(targets: tuple[dict[str, Target], Target]) -> AsyncIterator[Databases]:
    """The three zones with writers, and production."""
    gatherers, production = targets
    async with AsyncExitStack() as stack:
        zones = {}
        for seed, (zone, target) in enumerate(gatherers.items()):
            pool = await stack.enter_async_context(open_pool(target))
            zones[zone] = Zone(pool, seed)
        conn = await stack.enter_async_context(connect(production))
        yield Databases(gatherers, production, zones, conn)
        for writer in zones.values():
            await writer.close()
