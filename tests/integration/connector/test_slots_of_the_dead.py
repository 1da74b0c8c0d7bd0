"""What a successor writes about the sids of a process that died."""

from collections.abc import Sequence
from uuid import UUID, uuid4

from libs.marketdata.rows import DeltaRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.tables import Family
from libs.store.batches import seal
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, connect, open_pool
from services.connector.successor import succeed

ONE, TWO, THREE, FOUR = (UUID(int=n) for n in range(1, 5))


def heard(connection: UUID, sid: int, channel: str) -> ListenRangeRow:
    return ListenRangeRow(10, 1, 5, 1, 9, 0, sid, 1, connection, channel)


async def _write(target: Target, rows: dict[str, Sequence[tuple[object, ...]]]) -> None:
    async with open_pool(target) as pool:
        lane = LaneWriter(pool, family=Family.DELTAS, process="shard", instance=uuid4())
        await lane.write(seal(rows))
        await lane.close()
    async with connect(target) as conn:
        await conn.execute("update lanes set closed_at = null, last_batch_no = null")


async def test_gaps_of_a_dead_process_name_their_slots(gatherer_db: Target) -> None:
    """Known by an opening, by a market, or because the shard has one slot of the kind; else left empty."""
    opened = ListenOpenedRow(10, 1, 1, 0, 1, 1, 1, ONE, "orderbook_delta", "orderbook/7", "A")
    delta = DeltaRow(1, 10, 100, 3, 100, 1, 1, True, TWO, "B", 2, None)
    ranges = [
        heard(ONE, 1, "orderbook_delta"),
        heard(TWO, 1, "orderbook_delta"),
        heard(THREE, 1, "trade"),
        heard(FOUR, 1, "ticker"),
    ]
    async with connect(gatherer_db) as conn:
        await conn.execute(
            "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, updated_at,"
            " content_hash, body) values ('B', 'B', 'B', 'active', false, true, 'orderbook/8', 0, 0, '{}')"
        )
        await conn.execute(
            "insert into slot_assignments (slot, shard, epoch, state) select slot, 'shard', 1, 'live'"
            " from unnest('{trade/1,ticker/0,ticker/1}'::text[]) as s (slot)"
        )
        await _write(
            gatherer_db,
            {"listen_ranges": ranges, "listen_opened": [opened], "orderbook_deltas": [delta]},
        )
        gaps = await succeed(conn, "shard", uuid4(), 99)
    assert {(gap.connection, gap.reason, gap.slot) for gap in gaps} == {
        (ONE, "process_died", "orderbook/7"),
        (TWO, "process_died", "orderbook/8"),
        (THREE, "process_died", "trade/1"),
        (FOUR, "process_died", ""),
    }
