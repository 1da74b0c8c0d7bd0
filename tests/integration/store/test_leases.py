"""Leases on a real server: one holder, the database's clock, take-over only after a whole lease seen."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from libs.store.errors import StoreUnavailable
from libs.store.leases import Lease
from libs.store.pool import Connection, Pool, Target, open_pool
from tests.integration.store.lanes_support import opened

NOWHERE = Target("127.0.0.1", 1, "none", "none", "")
LONG_S = 600.0
"""A lease that does not run out during a test."""


async def expire(conn: Connection) -> None:
    """Let the holder's time be over."""
    await conn.execute("update leases set expires_at = clock_timestamp() - interval '1 second'")


async def judge_of(pool: Pool) -> Lease:
    """Another claimant with a short lease, who has seen the database up for long."""
    lease = Lease(pool, "registry", uuid4(), 0.02)
    await lease.take_once()
    assert lease._seen_since is not None
    lease._seen_since -= timedelta(hours=1)
    return lease


async def test_a_free_lease_is_taken_and_kept(gatherer_db: Target) -> None:
    """The first holder gets epoch 1; asking again and renewing keep it and prolong it by the database's clock."""
    async with opened(gatherer_db) as (pool, conn):
        lease = Lease(pool, "registry", uuid4(), LONG_S)
        assert await lease.acquire(asyncio.Event())
        assert lease.epoch == 1
        await conn.execute("update leases set expires_at = clock_timestamp()")
        assert await lease.renew()
        assert await lease.take_once()
        assert lease.epoch == 1
        left = await conn.fetchval(
            "select extract(epoch from expires_at - clock_timestamp()) from leases"
        )
        assert LONG_S - 10 < left <= LONG_S


async def test_a_lease_that_runs_belongs_to_one(gatherer_db: Target) -> None:
    """While it runs nobody else gets it; waiting ends with stop; other names are free."""
    async with opened(gatherer_db) as (pool, _):
        lease, other = (Lease(pool, "registry", uuid4(), LONG_S) for _ in range(2))
        stop = asyncio.Event()
        assert await lease.acquire(stop)
        assert not await other.take_once()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(other.acquire(stop))
            stop.set()
        assert waiting.result() is False
        assert other.epoch is None
        assert await Lease(pool, "poller", uuid4(), LONG_S).take_once()


async def test_an_expired_lease_is_taken_over_with_a_higher_epoch(gatherer_db: Target) -> None:
    """Take-over raises the epoch; the old holder can neither renew nor write behind its fence, and knows it."""
    async with opened(gatherer_db) as (pool, conn):
        old = Lease(pool, "registry", uuid4(), LONG_S)
        assert await old.take_once()
        new = await judge_of(pool)
        await expire(conn)
        async with asyncio.timeout(60):
            assert await new.acquire(asyncio.Event())
        assert new.epoch == 2
        async with conn.transaction():
            assert await new.holds(conn)
            assert not await old.holds(conn)
        assert not await old.renew()
        assert old.epoch is None
        assert not await old.renew()


async def test_nobody_is_judged_dead_at_first_sight(gatherer_db: Target) -> None:
    """An expired lease is not taken by one who has only just come, nor before the server itself is one lease old."""
    async with opened(gatherer_db) as (pool, conn):
        old = Lease(pool, "registry", uuid4(), LONG_S)
        assert await old.take_once()
        await expire(conn)
        newcomer = Lease(pool, "registry", uuid4(), 0.02)
        assert not await newcomer.take_once()
        # Its second sight would do, were its lease not longer than the server is up.
        patient = Lease(pool, "registry", uuid4(), 864_000.0)
        assert not await patient.take_once()
        patient._seen_since = await conn.fetchval("select '2000-01-01'::timestamptz")
        assert not await patient.take_once()
        assert await old.renew()
        assert old.epoch == 1


async def test_a_break_in_sight_begins_the_judging_anew(gatherer_db: Target) -> None:
    """A judge that lost the database for a moment has to see it up for one whole lease again."""
    async with opened(gatherer_db) as (pool, conn), open_pool(NOWHERE, wait=False) as nowhere:
        assert await Lease(pool, "registry", uuid4(), LONG_S).take_once()
        judge = await judge_of(pool)
        await expire(conn)
        judge._pool = nowhere
        with pytest.raises(StoreUnavailable):
            await judge.take_once()
        judge._pool = pool
        assert not await judge.take_once()
        async with asyncio.timeout(60):
            assert await judge.acquire(asyncio.Event())
        assert judge.epoch == 2


async def test_waiting_goes_on_while_the_database_is_away() -> None:
    """Acquire does not fail when the database is away; it ends with stop."""
    async with open_pool(NOWHERE, wait=False) as pool:
        lease, stop = Lease(pool, "registry", uuid4(), 0.02), asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(lease.acquire(stop))
            await asyncio.sleep(0)
            stop.set()
        assert waiting.result() is False


async def test_a_lease_given_up_is_free_at_once(gatherer_db: Target) -> None:
    """Release needs no waiting and no judging; the next holder has a higher epoch; releasing twice is harmless."""
    async with opened(gatherer_db) as (pool, _):
        first, second = (Lease(pool, "registry", uuid4(), LONG_S) for _ in range(2))
        assert await first.take_once()
        await first.release()
        assert await second.take_once()
        assert second.epoch == 2
        await first.release()
        assert await second.renew()


async def test_many_claimants_get_one_holder(gatherer_db: Target) -> None:
    """Taken at the same time by eight, a free lease has one holder."""
    async with opened(gatherer_db) as (pool, _):
        leases = [Lease(pool, "registry", uuid4(), LONG_S) for _ in range(8)]
        taken = await asyncio.gather(*(lease.take_once() for lease in leases))
        assert sum(taken) == 1
