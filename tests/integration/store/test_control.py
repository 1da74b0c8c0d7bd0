"""Control tables on a real server: leases, the planner's fence, and moves from assigned to deleted."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.flow.assignment import Pair, Plan, State, plan
from libs.store import control, planner
from libs.store.catalogue_views import read_strays
from libs.store.connections import count_connections, reserve
from libs.store.control import Owned
from libs.store.errors import StoreRefused
from libs.store.planner import Planner
from libs.store.planning import Wishes, decide, look
from libs.store.pool import Connection, Target, connect
from libs.store.slot_moves import with_markets

SLOTS = ["orderbook/0", "orderbook/1", "trade/0", "trade/1"]


@pytest.fixture
async def conn(gatherer_db: Target) -> AsyncIterator[Connection]:
    """A connection to a fresh zone."""
    async with connect(gatherer_db) as opened:
        yield opened


async def begin(conn: Connection, *names: str) -> dict[str, UUID]:
    instances = {name: uuid4() for name in names}
    for name, instance in instances.items():
        await control.register(conn, name, instance, template_hash="x", capacity=1)
    return instances


async def expire(conn: Connection, name: str) -> None:
    await conn.execute(
        "update shards set expires_at = clock_timestamp() - interval '1 minute' where shard = $1",
        name,
    )


async def test_a_heartbeat_belongs_to_the_last_instance_of_a_name(conn: Connection) -> None:
    """A restarted container takes the name over; its epoch is the largest."""
    first = (await begin(conn, "a"))["a"]
    second = (await begin(conn, "a"))["a"]
    assert not await control.heartbeat(conn, "a", first, load=1, draining=False)
    assert await control.heartbeat(conn, "a", second, load=1, draining=True)
    assert await conn.fetchval("select epoch from shards where shard = 'a'") == 2
    assert await control.others_drain(conn, "b")
    assert not await control.others_drain(conn, "a")


async def test_the_live_shard_with_the_lowest_name_plans(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else, until its planner row has expired and the database was seen up for a lease."""
    await begin(conn, "a", "b")
    first, second = Planner("a"), Planner("b")
    assert not await second.take(conn, 0.0)
    assert await first.take(conn, 0.0)
    assert first.epoch == 1
    assert await first.take(conn, 1.0)
    assert (first.epoch, first.held_for) == (1, 1.0)
    await expire(conn, "a")
    await conn.execute("update planner set expires_at = clock_timestamp() - interval '1 second'")
    assert not await second.take(conn, 1.0)
    judging = Planner("b")
    judging._up_for, judging._seen_at = 100.0, 0.0
    await conn.execute("select pg_sleep(0)")
    # The test's own server may be younger than a lease.
    monkeypatch.setattr(planner, "LEASE_S", 0.5)
    assert await judging.take(conn, 10.0)


async def _age(conn: Connection) -> None:
    """The planner's row ran out a second ago."""
    await conn.execute("update planner set expires_at = clock_timestamp() - interval '1 second'")


def _long_watching(holder: str) -> Planner:
    """A planner that has seen the database for a lease; the server itself may be younger."""
    planner = Planner(holder)
    planner._up_for, planner._seen_at = 100.0, 0.0
    return planner


async def test_the_operator_takes_the_row_from_a_shard_at_once(conn: Connection) -> None:
    """With a new epoch, so that the shard's plan that is under way comes to nothing; it then stays the operator's."""
    await begin(conn, "a")
    shard, operator = Planner("a"), Planner("operator/one")
    assert await shard.take(conn, 0.0)
    assert await operator.take(conn, 0.0)
    assert (operator.epoch, operator.other) == (2, "")
    assert not await shard.write(conn, Plan(insert=[Pair("orderbook/0", "a")]), 200)
    assert not await shard.take(conn, 0.0)
    assert shard.other == "operator/one"
    assert await operator.take(conn, 1.0)
    assert (operator.epoch, operator.held_for) == (2, 1.0)


async def test_of_two_operators_one_plans(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other waits for the end of its lease, or until it gives up; then it goes on at once."""
    first, second = Planner("operator/one"), Planner("operator/two")
    assert await first.take(conn, 0.0)
    assert not await second.take(conn, 0.0)
    assert (second.epoch, second.other) == (None, "operator/one")
    await first.give_up(conn)
    assert await second.take(conn, 1.0)
    assert not await first.take(conn, 1.0)
    await _age(conn)
    assert not await first.take(conn, 2.0)  # it has not seen the database for a lease
    monkeypatch.setattr(planner, "LEASE_S", 0.5)
    assert await _long_watching("operator/one").take(conn, 10.0)


async def test_a_shard_stands_in_when_the_operators_row_runs_out(conn: Connection) -> None:
    """Or as soon as it is given up: the live shard with the lowest name, and no other."""
    await begin(conn, "a", "b")
    operator, low, high = Planner("operator/one"), Planner("a"), Planner("b")
    assert await operator.take(conn, 0.0)
    assert not await low.take(conn, 0.0)
    await operator.give_up(conn)
    assert not await high.take(conn, 0.0)
    assert await low.take(conn, 0.0)
    assert not await operator.write(conn, Plan(insert=[Pair("orderbook/0", "a")]), 200)


async def test_a_plan_of_the_operator_needs_no_more_than_its_grants(
    conn: Connection, gatherer_db: Target
) -> None:
    """Every statement of a turn as kd_planner: taking, reading, each kind of change, giving up."""
    await begin(conn, "a", "b", "c")
    await conn.execute(
        "insert into slot_assignments (slot, shard, epoch, state) values ('orderbook/0', 'a', 1, 'live'),"
        " ('orderbook/1', 'a', 1, 'releasing'), ('orderbook/2', 'a', 1, 'assigned'), ('orderbook/3', 'c', 1, 'live')"
    )
    await expire(conn, "c")
    operator = _long_watching("operator/one")
    async with connect(gatherer_db) as own:
        await own.execute("set role kd_planner")
        wishes = Wishes(["trade/0"], 200)
        found = await look(own, operator, wishes, now_s=0.0, settle_s=100.0)
        assert found is not None and found.plan is None
        assert (await decide(own, found.zone, wishes)).insert
        everything = Plan(
            insert=[Pair("orderbook/4", "b")],
            release=[Pair("orderbook/0", "a")],
            restore=[Pair("orderbook/1", "a")],
            withdraw=[Pair("orderbook/2", "a")],
            bury=[Pair("orderbook/3", "c")],
        )
        assert await operator.write(own, everything, 200)
        await control.notify(own, control.ASSIGNMENTS)
        await operator.give_up(own)
    rows = await conn.fetch("select slot, shard, state from slot_assignments order by slot")
    assert [tuple(row) for row in rows if row["slot"] in ("orderbook/0", "orderbook/1")] == [
        ("orderbook/0", "a", "releasing"),
        ("orderbook/1", "a", "live"),
    ]
    assert {"orderbook/3"} & {row["slot"] for row in rows if row["shard"] == "c"} == set()


async def test_an_operator_that_may_take_the_row_and_not_plan_lets_a_shard_stand_in(
    conn: Connection, gatherer_db: Target
) -> None:
    """Refused behind the row it gives the row up at once, each time; when it may plan it is the operator's again."""
    await begin(conn, "a")
    # Of a slot that is configured no more it is asked whether markets are heard in it.
    await conn.execute(
        "insert into slot_assignments (slot, shard, epoch, state) values ('orderbook/9', 'a', 1, 'live')"
    )
    await conn.execute("revoke select (slot, wanted, moved_from) on markets from kd_planner")
    operator, shard, wishes = Planner("operator/one"), Planner("a"), Wishes(SLOTS, 200)
    async with connect(gatherer_db) as own:
        await own.execute("set role kd_planner")
        for _ in range(2):
            with pytest.raises(StoreRefused):
                await look(own, operator, wishes, now_s=0.0, settle_s=0.0)
            operator.unseen()
            stood_in = await look(conn, shard, wishes, now_s=0.0, settle_s=0.0)
            assert stood_in is not None and stood_in.written
        assert len(await conn.fetch("select from slot_assignments where shard = 'a'")) == 5
        await conn.execute("grant select (slot, wanted, moved_from) on markets to kd_planner")
        found = await look(own, operator, wishes, now_s=0.0, settle_s=0.0)
        assert found is not None and found.written
        assert await look(conn, shard, wishes, now_s=0.0, settle_s=0.0) is None


async def test_shards_long_gone_are_forgotten_when_one_starts(conn: Connection) -> None:
    """Pods of a Deployment never come back under their names; who still has a row is kept."""
    await begin(conn, "dead", "owing", "late")
    await conn.execute(
        "insert into slot_assignments (slot, shard, epoch, state) values ('orderbook/0', 'owing', 1, 'live')"
    )
    await conn.execute(
        "update shards set expires_at = clock_timestamp() - interval '61 minutes' where shard <> 'late'"
    )
    await begin(conn, "new")
    left = await conn.fetch("select shard from shards order by shard")
    assert [row["shard"] for row in left] == ["late", "new", "owing"]


async def test_a_plan_is_fenced_by_the_planners_epoch(conn: Connection) -> None:
    """A planner that was overtaken writes nothing."""
    await begin(conn, "a")
    old = Planner("a")
    assert await old.take(conn, 0.0)
    await conn.execute("update planner set epoch = epoch + 1, holder = 'operator'")
    assert not await old.write(conn, Plan(insert=[Pair("orderbook/0", "a")]), 200)
    assert await conn.fetchval("select count(*) from slot_assignments") == 0
    assert old.epoch is None


async def test_a_planner_that_gives_up_midway_has_still_planned_by_its_epoch(
    conn: Connection, gatherer_db: Target
) -> None:
    """A drain gives up by another connection while a plan is written: the rows bear the epoch their fence saw."""
    await begin(conn, "a", "b")
    planner = Planner("a")
    assert await planner.take(conn, 0.0)
    zone = await planner.read(conn)
    assert zone is not None
    async with connect(gatherer_db) as other, other.transaction():
        await other.execute("lock table shards")  # the insert counts connections: here it waits
        writing = asyncio.create_task(
            planner.write(conn, Plan(insert=[Pair("orderbook/0", "b")]), 200)
        )
        async with asyncio.timeout(60):
            while not await other.fetchval(
                "select exists(select from pg_locks where not granted and relation = 'shards'::regclass)"
            ):
                pass
        planner.unseen()
    assert await writing
    assert [(row.slot, row.epoch) for row in (await planner.read(conn) or zone).rows] == [
        ("orderbook/0", 1)
    ]
    assert not await planner.write(conn, Plan(insert=[Pair("orderbook/1", "b")]), 200)


async def test_a_slot_moves_make_before_break(conn: Connection) -> None:
    """assigned, live, releasing with the successor's start, deleted."""
    await begin(conn, "a", "b")
    planner = Planner("a")
    await planner.take(conn, 0.0)

    async def step() -> Plan:
        zone = await planner.read(conn)
        assert zone is not None
        made = plan(SLOTS, zone.shards, zone.rows)
        assert await planner.write(conn, made, 200)
        return made

    assert len((await step()).insert) == 4
    for name in ("a", "b"):
        for row in await control.owned(conn, name):
            assert row.state is State.ASSIGNED
            assert await control.set_live(conn, row.slot, name, 100)
            assert not await control.set_live(conn, row.slot, name, 200)
    assert (await step()).is_empty
    mine = {row.slot for row in await control.owned(conn, "b")}
    await conn.execute("update shards set draining = true where shard = 'b'")
    assert {pair.slot for pair in (await step()).insert} == mine
    slot = min(mine)
    assert not await control.released(conn, slot, "b")
    await conn.execute("insert into slot_versions (slot, version) values ($1, 7)", slot)
    assert await control.surpassed(conn, [slot], "b") == set()
    assert not await control.set_live(conn, slot, "a", 300, 6)
    assert await control.set_live(conn, slot, "a", 300, 7)
    # Also while nobody has planned yet: both are live, and the later one goes on.
    assert await control.surpassed(conn, sorted(mine), "b") == {slot}
    assert await control.surpassed(conn, sorted(mine), "a") == set()
    assert (await step()).release == [Pair(slot, "b")]
    assert await control.surpassed(conn, [slot], "b") == {slot}
    row = next(r for r in await control.owned(conn, "b") if r.slot == slot)
    assert row._replace(sibling_from=None) == Owned(slot, State.RELEASING, 1, 300)
    assert await control.released(conn, slot, "b")
    assert slot not in {r.slot for r in await control.owned(conn, "b")}
    assert await control.surpassed(conn, [slot], "b") == {slot}
    assert await control.surpassed(conn, [slot], "a") == set()


async def test_expired_shards_are_judged_only_after_a_lease_of_seeing_the_database(
    conn: Connection,
) -> None:
    """After an outage every lease is old and nobody is dead."""
    await begin(conn, "a", "b")
    planner = Planner("a")
    await planner.take(conn, 0.0)
    await expire(conn, "b")
    assert await planner.read(conn) is None
    planner.unseen()
    assert planner.epoch is None


async def test_rows_of_the_living_are_never_buried(conn: Connection) -> None:
    """A shard that came back meanwhile keeps its row."""
    await begin(conn, "a", "b")
    planner = Planner("a")
    await planner.take(conn, 0.0)
    await planner.write(
        conn, Plan(insert=[Pair("orderbook/0", "b"), Pair("orderbook/1", "b")]), 200
    )
    await planner.write(conn, Plan(bury=[Pair("orderbook/0", "b")]), 200)
    assert len(await control.owned(conn, "b")) == 2
    await expire(conn, "b")
    await planner.write(
        conn, Plan(bury=[Pair("orderbook/0", "b")], withdraw=[Pair("orderbook/1", "b")]), 200
    )
    assert await control.owned(conn, "b") == []
    await planner.give_up(conn)
    assert await Planner("a").take(conn, 0.0)


async def test_a_slots_markets_are_those_wanted(conn: Connection) -> None:
    """With the version they were listed under."""
    await conn.execute(
        "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, updated_at,"
        " content_hash, body) values ('B', '', '', '', false, true, 'orderbook/0', 0, 0, ''),"
        " ('A', '', '', '', false, true, 'orderbook/0', 0, 0, ''),"
        " ('C', '', '', '', false, false, 'orderbook/0', 0, 0, '')"
    )
    await conn.execute("insert into slot_versions values ('orderbook/0', 7)")
    assert await control.slot_versions(conn, ["orderbook/0", "orderbook/1"]) == {"orderbook/0": 7}
    assert await control.slot_markets(conn, "orderbook/0") == ["A", "B"]


async def test_a_slot_has_markets_until_the_last_one_has_left_it(conn: Connection) -> None:
    """Wanted ones, and those on their way from it; of the others nobody asks."""
    await conn.execute(
        "insert into markets (ticker, event_ticker, series_ticker, status, is_combo, wanted, slot, moved_from,"
        " updated_at, content_hash, body)"
        " select ticker, '', '', '', false, wanted, slot, moved_from, 0, 0, '' from (values"
        " ('A', true, 'orderbook/0', null), ('B', true, 'orderbook/0', 'orderbook/1'),"
        " ('C', false, 'orderbook/2', null), ('D', false, 'orderbook/0', 'orderbook/3'))"
        " as m (ticker, wanted, slot, moved_from)"
    )
    await conn.execute(
        "insert into slot_versions select 'orderbook/' || n, 1 from generate_series(0, 3) n"
    )
    names = [f"orderbook/{number}" for number in range(5)]
    assert await with_markets(conn, names) == ["orderbook/0", "orderbook/1"]
    assert await with_markets(conn, []) == []
    assert set(await read_strays(conn, names[1:], 10)) == {"A", "B"}
    assert len(await read_strays(conn, names[1:], 1)) == 1
    assert await read_strays(conn, names, 10) == {}


async def _reserve(conn: Connection, shard: str, instance: UUID, **changes: Any) -> int:
    asked: dict[str, Any] = {
        "held": [],
        "reserved": 0,
        "wanted": 4,
        "slots": SLOTS,
        "connections_max": 10,
    }
    return await reserve(conn, shard, instance, **asked | changes)


async def test_shards_reserve_no_more_connections_than_the_account_has(conn: Connection) -> None:
    """One per slot, also of slots that nobody serves yet, one to move, and what others have; the dead have none."""
    instances = await begin(conn, "a", "b")
    assert await _reserve(conn, "a", instances["a"]) == 4
    assert await _reserve(conn, "b", instances["b"]) == 1
    assert await _reserve(conn, "b", instances["b"], reserved=1, wanted=2) == 1
    assert await _reserve(conn, "b", uuid4(), reserved=1, connections_max=100) == 1
    assert await count_connections(conn) == 5
    await expire(conn, "a")
    assert await _reserve(conn, "b", instances["b"], reserved=1) == 4
    # What is open without a row is counted, and what is reserved is kept.
    assert await _reserve(conn, "b", instances["b"], held=["x/0", "x/1"], reserved=4) == 4
    assert await count_connections(conn) == 6


async def test_after_an_outage_nobody_reserves_what_others_still_have(conn: Connection) -> None:
    """All leases are old then, and nobody is dead: who is back first keeps what it has, and takes no more."""
    instances = await begin(conn, "a", "b")
    assert await _reserve(conn, "a", instances["a"]) == 4
    assert await _reserve(conn, "b", instances["b"]) == 1
    for name in "ab":
        await expire(conn, name)
    await control.heartbeat(conn, "b", instances["b"], load=1, draining=False)
    assert await _reserve(conn, "b", instances["b"], reserved=1, may_grow=False) == 1
    await control.heartbeat(conn, "a", instances["a"], load=1, draining=False)
    assert await _reserve(conn, "a", instances["a"], reserved=4, may_grow=False) == 4
    assert await count_connections(conn) + len(SLOTS) == 9


async def test_a_plan_makes_no_more_rows_than_there_are_connections(conn: Connection) -> None:
    """Slots that nobody serves come before moves; a withdrawn row's connection counts until its shard says it is closed."""
    instances = await begin(conn, "a", "b")
    planner = Planner("a")
    await planner.take(conn, 0.0)
    assert await planner.write(conn, Plan(insert=[Pair("orderbook/0", "a")]), 3)
    assert await _reserve(conn, "b", instances["b"], slots=[], connections_max=3) == 1
    zone = await planner.read(conn)
    assert zone and {s.name: s.extra_connections for s in zone.shards} == {"a": 0, "b": 1}
    plan_of_two = Plan(insert=[Pair("orderbook/0", "b"), Pair("orderbook/1", "a")])
    assert await planner.write(conn, plan_of_two, 3)
    assert [row.slot for row in await control.owned(conn, "a")] == ["orderbook/0", "orderbook/1"]
    assert (await control.owned(conn, "b"), await count_connections(conn)) == ([], 3)
    await planner.write(conn, Plan(withdraw=[Pair("orderbook/1", "a")]), 3)
    assert await count_connections(conn) == 3
    await _reserve(conn, "a", instances["a"], held=["orderbook/0", "orderbook/1"], wanted=0)
    assert await count_connections(conn) == 3
    await _reserve(conn, "a", instances["a"], held=["orderbook/0"], wanted=0)
    assert await count_connections(conn) == 2
    assert await planner.write(conn, plan_of_two, 3)
    assert [row.slot for row in await control.owned(conn, "a")] == ["orderbook/0", "orderbook/1"]
