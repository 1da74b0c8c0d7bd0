"""The registry turns old chunks into columns."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store.batches import seal
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, open_pool
from tests.integration.registry.world import QUICK, running_zone
from tests.integration.store.lanes_support import delta
from tests.support.postgres import with_timescale
from tests.unit.registry.factories import SECOND


async def test_old_chunks_are_packed(gatherer_db: Target, tmp_path: Path) -> None:
    """An acknowledged chunk becomes columns where the server has them; elsewhere nothing is missed."""
    at = SystemClock().now() - 5 * 3_600 * SECOND
    async with running_zone(gatherer_db, tmp_path) as zone, open_pool(gatherer_db) as pool:
        lane = LaneWriter(pool, family=Family.DELTAS, process="connector-a-1", instance=uuid4())
        await lane.write(seal({"orderbook_deltas": [delta(1, exchange_ts=at)]}))
        await zone.conn.execute("insert into lane_acknowledgements values ($1, 1, 1)", lane.lane)
        await lane.close()
        zone.settings = replace(zone.settings, registry=replace(QUICK, pack_s=0.1))
        async with zone.registry() as runtime:
            if with_timescale():
                await zone.until(lambda: runtime.health.document()["columns"]["packed"] >= 1)
                packed = await zone.value("select bool_and(is_compressed) from timescaledb_information.chunks where hypertable_name = 'orderbook_deltas'")  # fmt: skip
                assert packed
            assert runtime.health.document()["columns"]["last_reason"] == ""
        assert await zone.value("select count(*) from orderbook_deltas") == 1
