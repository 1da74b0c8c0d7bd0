"""The registry follows the zone's own lifecycle rows, the clock, and the lanes of the dead."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from libs.marketdata.rows import LifecycleRow
from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store.batches import seal
from libs.store.lanes import LaneWriter
from libs.store.notify import Notifier
from libs.store.pool import Target, open_pool
from services.registry.slots import slot_name
from tests.integration.registry.world import QUICK, Zone, running_zone

SECOND = 1_000_000
CLOCK = SystemClock()
SLOW = replace(QUICK, incremental_s=600.0)
"""No listing comes to the rescue of what the messages should do."""
KEPT = replace(QUICK, lease_s=60.0)
"""A lease that nobody loses who stands still for a while."""


def heard(
    event_type: str, ticker: str, body: dict[str, Any] | None = None, **changes: Any
) -> LifecycleRow:
    """A lifecycle row as a connector writes it."""
    now = CLOCK.now()
    text = json.dumps({"event_type": event_type, "market_ticker": ticker, **(body or {})})
    return LifecycleRow(
        observed_at=now, received_at=now, content_hash=0, seq=1, sid=4, observed_is_sent=True, connection=uuid4(),
        message_type="market_lifecycle_v2", event_type=event_type, ticker=ticker, body=text, sent_at=now,
        open_at=None, close_at=None, determined_at=None, settled_at=None, settlement_value=None, result=None,
    )._replace(**changes)  # fmt: skip


class Connector:
    """Stands for the connector: commits lifecycle rows on a lane of its own."""

    def __init__(self, lane: LaneWriter) -> None:
        self.lane = lane

    async def say(self, *rows: LifecycleRow) -> None:
        """Commit these rows in one batch."""
        await self.lane.write(seal({"market_lifecycle": rows}))


@asynccontextmanager
async def connector(target: Target) -> AsyncIterator[Connector]:
    """Open a lane; it stays open at the end, as when a connector dies."""
    stop = asyncio.Event()
    async with open_pool(target) as pool:
        notifier = Notifier(pool)
        wakes = asyncio.create_task(notifier.run(stop))
        lane = LaneWriter(
            pool, family=Family.REST, process="connector-a-1", instance=uuid4(), notifier=notifier
        )
        await lane.open()
        try:
            yield Connector(lane)
        finally:
            stop.set()
            await wakes
            pool.terminate()


async def market(zone: Zone, ticker: str) -> Any:
    """Return the market's row of the catalogue."""
    return await zone.conn.fetchrow("select * from markets where ticker = $1", ticker)


async def test_an_announced_market_has_a_slot_by_the_message_alone(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """`created` with its event: slot and raised version, before REST knows the market or is asked again (ten minutes)."""
    async with (
        running_zone(gatherer_db, tmp_path) as zone,
        zone.registry(registry=SLOW),
        connector(gatherer_db) as feed,
    ):
        woken = asyncio.Event()
        await zone.conn.add_listener("kd_markets", lambda *_: woken.set())
        metadata = {"additional_metadata": {"event_ticker": "KXNEW-26"}}
        await feed.say(heard("created", "KXNEW-26-T1", metadata, open_at=CLOCK.now() + 60 * SECOND))
        await zone.until(lambda: market(zone, "KXNEW-26-T1"))
        found = await market(zone, "KXNEW-26-T1")
        async with asyncio.timeout(60):
            await woken.wait()
        assert (found["wanted"], found["status"], found["event_ticker"]) == (
            True,
            "initialized",
            "KXNEW-26",
        )
        assert (
            await zone.value("select version from slot_versions where slot = $1", found["slot"])
            >= 1
        )


async def test_a_market_announced_without_details_is_fetched(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """`created` without an event: REST is asked until it knows the market; then slot, body and one version row."""
    async with (
        running_zone(gatherer_db, tmp_path, new_market_every_s=0.5) as zone,
        zone.registry(registry=SLOW),
        connector(gatherer_db) as feed,
    ):
        known = {r[0] for r in await zone.conn.fetch("select ticker from markets")}
        listings = zone.simulator.exchange.listings

        def fresh() -> list[str]:
            return [t for t in listings if t not in known and not t.startswith("KXMVE")]

        await zone.until(fresh)
        ticker = fresh()[0]
        await feed.say(heard("created", ticker))
        await zone.until(lambda: market(zone, ticker))
        found = await market(zone, ticker)
        assert found["wanted"]
        assert json.loads(found["body"])["ticker"] == ticker
        versions = "select count(*) from market_versions where ticker = $1"
        assert await zone.value(versions, ticker) == 1


async def test_messages_move_statuses_and_end_subscriptions(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Determined and settled: not wanted any more, and the slot's version is raised."""
    async with (
        running_zone(gatherer_db, tmp_path) as zone,
        zone.registry(registry=replace(SLOW, cache_s=600.0)),
        connector(gatherer_db) as feed,
    ):
        ticker, slot = await zone.conn.fetchrow("select ticker, slot from markets limit 1")
        version = "select version from slot_versions where slot = $1"
        before = await zone.value(version, slot)

        async def status_is(status: str) -> bool:
            return bool((await market(zone, ticker))["status"] == status)

        await feed.say(heard("deactivated", ticker))
        await zone.until(lambda: status_is("inactive"))
        assert await zone.value(version, slot) == before
        await feed.say(heard("determined", ticker), heard("settled", ticker))
        await zone.until(lambda: status_is("finalized"))
        assert not (await market(zone, ticker))["wanted"]
        assert await zone.value(version, slot) > before


async def test_the_clock_closes_and_rest_confirms(gatherer_db: Target, tmp_path: Path) -> None:
    """No message announces a close: the clock closes the market, and REST's word ends the subscription."""
    async with running_zone(
        gatherer_db, tmp_path, closing_share=1.0, close_after_s_min=2.0, close_after_s_max=3.0
    ) as zone, zone.registry(registry=SLOW):  # fmt: skip
        closing = "select count(*) from markets where status = 'closed' and not wanted"

        async def some_closed() -> bool:
            return bool(await zone.value(closing) > 0)

        await zone.until(some_closed)
        row = await zone.conn.fetchrow(
            "select * from markets where status = 'closed' and not wanted"
        )
        assert row["close_at"] <= CLOCK.now()
        bodies = await zone.conn.fetch(
            "select body from market_versions where ticker = $1 order by received_at", row["ticker"]
        )
        statuses = [json.loads(r["body"])["status"] for r in bodies]
        assert len(statuses) == len(set(statuses))
        assert statuses[-1] not in ("active", "initialized")


async def test_a_market_the_listing_found_late_has_its_cause(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """A market nobody announced, created before: a not_subscribed row from its creation on."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.registry():
            ticker = await zone.value(
                "select min(ticker) from markets where created_at is not null"
            )
            created = await zone.value("select created_at from markets where ticker = $1", ticker)
            assert CLOCK.now() - created > 10 * SECOND
        await zone.conn.execute("delete from markets where ticker = $1", ticker)
        await zone.conn.execute("delete from registry_state where key = 'lifecycle_cursors'")
        async with zone.registry(registry=replace(QUICK, full_sync_s=0.001)):
            await zone.until(lambda: market(zone, ticker))
            gap = await zone.conn.fetchrow("select * from gaps where ticker = $1", ticker)
            assert (gap["reason"], gap["channel"]) == ("not_subscribed", "orderbook_delta")
            assert gap["from_ts"] == created
            assert gap["to_ts"] > created


async def test_lanes_of_a_dead_process_are_closed(gatherer_db: Target, tmp_path: Path) -> None:
    """A shard whose lease ended leaves open lanes: the registry closes them with their last number."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with connector(gatherer_db) as feed:
            await feed.say(heard("activated", "KXGONE-1"))
            instance = await zone.value("select instance from lanes")
        await zone.conn.execute(
            "insert into shards (shard, instance, capacity, expires_at)"
            " values ('connector-a-1', $1, 8, clock_timestamp() - interval '1 hour')",
            instance,
        )
        async with zone.registry(registry=replace(QUICK, lease_s=0.5)):
            closed = "select last_batch_no from lanes where instance = $1 and closed_at is not null"
            await zone.until(lambda: zone.value(closed, instance))
            assert await zone.value(closed, instance) == 1


async def test_a_live_shards_lanes_stay_open(gatherer_db: Target, tmp_path: Path) -> None:
    """While the shard's lease lives its lanes are its own."""
    async with (
        running_zone(gatherer_db, tmp_path) as zone,
        connector(gatherer_db),
        zone.registry(registry=replace(QUICK, lease_s=0.5, housekeeping_s=0.05)) as runtime,
    ):
        await zone.conn.execute(
            "insert into shards (shard, instance, capacity, expires_at)"
            " select process, instance, 8, clock_timestamp() + interval '1 hour' from lanes"
            " where process = 'connector-a-1'"
        )
        rounds = runtime.health.document()["house"]["rounds"]
        await zone.until(lambda: runtime.health.document()["house"]["rounds"] >= rounds + 10)
        open_lanes = (
            "select count(*) from lanes where process = 'connector-a-1' and closed_at is null"
        )
        assert await zone.value(open_lanes) == 1


async def test_a_second_registry_waits_for_the_first(gatherer_db: Target, tmp_path: Path) -> None:
    """One lease: the second becomes active only when the first has stopped."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        first = zone.registry(registry=KEPT)
        async with first as running:
            second = asyncio.create_task(_ready_for_a_moment(zone))
            await zone.until(lambda: running.health.ready)
            assert not second.done()
            lanes = "select count(distinct instance) from lanes where process = 'registry'"
            assert await zone.value(lanes) <= 1
        async with asyncio.timeout(60):
            await second


async def _ready_for_a_moment(zone: Zone) -> None:
    async with zone.registry(registry=KEPT):
        pass


async def test_the_exchange_away_is_waited_for(gatherer_db: Target, tmp_path: Path) -> None:
    """With REST away the registry goes on trying and says that it is not ready; a stop still ends it at once."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        away = replace(zone.settings.exchange, rest_url="http://127.0.0.1:1/trade-api/v2")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2), zone.registry(exchange=away):
                raise AssertionError("ready without an exchange")


async def test_an_announced_market_that_never_comes_is_removed(
    gatherer_db: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REST does not know it after a bounded number of looks: not wanted any more, so its slot is not asked for it."""
    monkeypatch.setattr("services.registry.looking.MISS_WAIT", 1_000)
    async with (
        running_zone(gatherer_db, tmp_path) as zone,
        zone.registry(registry=SLOW),
        connector(gatherer_db) as feed,
    ):
        metadata = {"additional_metadata": {"event_ticker": "KXGHOST-26"}}
        await feed.say(heard("created", "KXGHOST-26-T1", metadata))

        async def removed() -> bool:
            found = await market(zone, "KXGHOST-26-T1")
            return found is not None and found["status"] == "removed" and not found["wanted"]

        await zone.until(removed)
        versions = "select count(*) from market_versions where ticker = 'KXGHOST-26-T1'"
        assert await zone.value(versions) == 0


async def test_another_number_of_slots_moves_markets(gatherer_db: Target, tmp_path: Path) -> None:
    """A restart with more slots places every market by the new number and raises both slots' versions."""
    async with running_zone(gatherer_db, tmp_path) as zone:
        async with zone.registry():
            before = dict(await zone.conn.fetch("select ticker, slot from markets"))
        slots = replace(zone.settings.slots, orderbook=9)
        async with zone.registry(slots=slots):
            after = dict(await zone.conn.fetch("select ticker, slot from markets"))
        moved = {ticker for ticker in after if after[ticker] != before[ticker]}
        assert after == {ticker: slot_name(ticker, 9) for ticker in before}
        assert {after[ticker] for ticker in moved} <= {"orderbook/8"}
