"""Another number of slots: markets move to another connection, and none of them is unheard for a moment."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.runtime.sections import SlotSettings
from libs.runtime.service import Runtime
from libs.store.batches import seal
from libs.store.catalogue import CatalogueWrite, write_catalogue
from libs.store.control import slot_markets, slot_versions
from libs.store.lanes import LaneWriter
from libs.store.pool import Target, open_pool
from libs.store.slot_moves import count_moving, end_moves, heard_in_new_slot
from tests.integration.registry.witness import committed, lost_deltas, most_connections
from tests.integration.registry.world import QUICK, running_zone
from tests.unit.registry.factories import state

SECOND = 1_000_000
OLD, NEW = SlotSettings(2, 1, 1, 1, 50), SlotSettings(3, 1, 1, 1, 50)
SETTLE = 4 * SECOND
A, B, LAST = "orderbook/0", "orderbook/1", "orderbook/2"
OWNERS = f"select string_agg(shard, ' ') from slot_assignments where slot = '{LAST}'"
CONNECTION = UUID(int=9)
OPENED = "select count(distinct ticker) from listen_opened where ticker is not null"
LEFT = "select count(distinct ticker) from listen_closed where ticker = any($1) and reason not like 'handed%'"


async def test_more_slots_move_markets_make_before_break(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Nobody serves the new slot: the old one keeps its markets. Then it is served: they are heard there, and only then
    left here. No market was unheard at any time.
    """
    async with running_zone(gatherer_db, tmp_path, rate=5.0) as zone:
        zone.settings = replace(
            zone.settings, slots=OLD, registry=replace(QUICK, move_settle_s=SETTLE / SECOND)
        )
        async with zone.registry() as old, zone.connector(grace_s=25.0) as first:
            before = dict(await zone.conn.fetch("select ticker, slot from markets where wanted"))
            await zone.until(lambda: _equals(zone.value(OPENED), len(before)))
            since = await zone.value("select max(sent_at) from listen_opened")
            old.stop.set()
            async with zone.registry(slots=NEW) as registry:
                after = dict(await zone.conn.fetch("select ticker, slot from markets where wanted"))
                moved = sorted(t for t in after if after[t] != before[t])
                assert moved and {after[t] for t in moved} == {"orderbook/2"}
                assert await slot_markets(zone.conn, "orderbook/2") == moved
                kept = [t for slot in (A, B) for t in await slot_markets(zone.conn, slot)]
                assert sorted(kept) == sorted(before)
                await zone.until(lambda: moves(registry)["moving"] == len(moved))
                async with zone.connector("connector-a-2", slots=NEW):
                    first.stop.set()
                    await zone.until(lambda: moves(registry)["ended"] == len(moved))
                    assert set(await slot_markets(zone.conn, A)).isdisjoint(moved)
                    await zone.until(lambda: _equals(zone.value(LEFT, moved), len(moved)))
        holes = await zone.conn.fetch(
            "select ticker, from_ts, to_ts from listening_gaps where channel = 'orderbook_delta' and to_ts > $1",
            since + 2 * SECOND,
        )
        assert [tuple(hole) for hole in holes] == []


async def test_fewer_slots_move_markets_make_before_break(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """The withdrawn slot is served, and handed from shard to shard, until its last market is heard elsewhere; then it goes.

    Nothing is missed, and never is there a connection more than the account has.
    """
    many, few, limit = SlotSettings(3, 1, 1, 1, 8), SlotSettings(2, 1, 1, 1, 8), 8
    async with running_zone(gatherer_db, tmp_path, rate=40.0, connections_max=limit) as zone:
        own = replace(QUICK, move_settle_s=SETTLE / SECOND)
        zone.settings = replace(zone.settings, slots=many, registry=own)
        async with (
            zone.registry() as old,
            zone.connector(grace_s=25.0, extra_connections_max=0) as first,
        ):
            before = dict(await zone.conn.fetch("select ticker, slot from markets where wanted"))
            moved = sorted(ticker for ticker, slot in before.items() if slot == LAST)
            await zone.until(lambda: _equals(zone.value(OPENED), len(before)))
            since = await zone.value("select max(sent_at) from listen_opened") + 2 * SECOND
            async with zone.connector("connector-a-2", slots=few, extra_connections_max=0):
                first.stop.set()
                await zone.until(lambda: _equals(zone.value(OWNERS), "connector-a-2"))
                old.stop.set()
                async with zone.registry(slots=few) as registry:
                    await zone.until(lambda: moves(registry)["moving"] == len(moved))
                    assert await slot_markets(zone.conn, LAST) == moved
                    await zone.until(lambda: moves(registry)["ended"] == len(moved))
                    await zone.until(lambda: _equals(zone.value(OWNERS), None))
                    until = zone.simulator.clock.now() - SECOND
        found = await committed(zone)
        assert moved and {row.reason for row in found.rows("gaps")} <= {"not_subscribed"}
        assert lost_deltas(zone, found, before, since, until) == []
        assert most_connections(zone) == (limit, 0)
        closed = {row.reason for row in found.rows("listen_closed") if row.ticker is None}
        assert closed == {"handed over", "drained"}


def moves(registry: Runtime) -> dict[str, int]:
    """What /health says of moves."""
    found: dict[str, int] = registry.health.document()["moves"]
    return found


async def _equals(found: Any, number: object) -> bool:
    return bool(await found == number)


class Zone:
    """A catalogue and a connector's lane, without an exchange."""

    def __init__(self, conn: Any, lane: LaneWriter) -> None:
        self.conn = conn
        self.lane = lane

    async def put(self, slot: str | None, **changes: Any) -> frozenset[str]:
        """Write the one market."""
        placed = state("T", slot=slot, **changes)
        return await write_catalogue(self.conn, CatalogueWrite(markets=((placed, "{}"),)))

    async def lists(self) -> dict[str, list[str]]:
        """Return both slots' lists."""
        return {slot: await slot_markets(self.conn, slot) for slot in (A, B)}

    async def say(
        self, ago: int, seq: int, *, ticker: str | None = "T", closes: bool = False
    ) -> None:
        """Commit an opening of the new slot, or a closing, as of some time ago."""
        at = SystemClock().now() - ago
        if closes:
            closed = ListenClosedRow(
                at, seq, at, 1, 1, 0, CONNECTION, "orderbook_delta", "seq", ticker
            )
            await self.lane.write(seal({"listen_closed": [closed]}))
        else:
            opened = ListenOpenedRow(
                at, seq, at, SECOND, 1, 1, 0, CONNECTION, "orderbook_delta", B, ticker
            )
            await self.lane.write(seal({"listen_opened": [opened]}))

    async def arrived(self) -> list[str]:
        return await heard_in_new_slot(self.conn, SETTLE, 10)


async def test_a_market_arrives_when_its_new_slot_has_heard_it_for_long_enough(
    gatherer_db: Target,
) -> None:
    """Not before it is opened, not while that is too fresh or closed again; a gap in seq that was closed does not matter."""
    async with open_pool(gatherer_db) as pool, pool.acquire() as conn:
        lane = LaneWriter(pool, family=Family.DELTAS, process="connector-a-1", instance=uuid4())
        await lane.open()
        zone = Zone(conn, lane)
        await zone.put(A)
        assert await zone.put(B) == {A, B}
        assert await zone.lists() == {A: ["T"], B: ["T"]}
        assert (await zone.arrived(), await count_moving(conn)) == ([], 1)
        await zone.say(0, 1)
        assert await zone.arrived() == []
        await conn.execute("update markets set moved_at = moved_at - $1", 60 * SECOND)
        await zone.say(30 * SECOND, 2)
        assert await zone.arrived() == ["T"]
        await zone.say(20 * SECOND, 5, ticker=None, closes=True)
        assert await zone.arrived() == []
        await zone.say(19 * SECOND, 6, ticker=None)
        assert await zone.arrived() == ["T"]
        await zone.say(10 * SECOND, 7, closes=True)
        assert await zone.arrived() == []
        await zone.say(9 * SECOND, 8)
        assert await zone.arrived() == ["T"]
        versions = await slot_versions(conn, [A, B])
        assert await end_moves(conn, ["T"]) == {A}
        assert await slot_versions(conn, [A, B]) == versions | {A: versions[A] + 1}
        assert (await zone.lists(), await count_moving(conn)) == ({A: [], B: ["T"]}, 0)
        await lane.close()


async def test_what_becomes_of_a_move_that_is_overtaken(gatherer_db: Target) -> None:
    """Moved back: no move. Excluded or over: in no list, and both slots are told. Not wanted: it just has another slot."""
    async with open_pool(gatherer_db) as pool, pool.acquire() as conn:
        zone = Zone(conn, LaneWriter(pool, family=Family.REST, process="x", instance=uuid4()))
        await zone.put(A)
        await zone.put(B)
        assert await zone.put(A) == {A, B}
        assert (await zone.lists(), await count_moving(conn)) == ({A: ["T"], B: []}, 0)
        await zone.put(B)
        assert await zone.put("orderbook/2") == {A, B, "orderbook/2"}
        assert await zone.lists() == {A: ["T"], B: []}
        assert await zone.put(None, wanted=False) == {A, "orderbook/2"}
        assert (await zone.lists(), await count_moving(conn)) == ({A: [], B: []}, 0)
        await zone.put(A, wanted=False)
        await zone.put(B)
        assert await zone.lists() == {A: [], B: ["T"]}
        assert await conn.fetchval("select moved_from from markets") is None


async def test_an_older_registrys_write_is_still_possible(gatherer_db: Target) -> None:
    """Level 3 only adds: what code of level 2 inserts has no move."""
    async with open_pool(gatherer_db) as pool, pool.acquire() as conn:
        await conn.execute(
            "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, updated_at,"
            " content_hash, body) values ('T', 'E', 'S', 'active', false, true, $1, 0, 0, '{}')",
            A,
        )
        assert await slot_markets(conn, A) == ["T"]
