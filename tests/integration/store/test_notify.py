"""Wake-ups on a real server: few, the last one certain, and listening survives its connection."""

import asyncio
from dataclasses import replace

from libs.store.notify import BATCHES, Listener, Notifier
from libs.store.pool import Connection, Target, open_pool
from tests.integration.store.lanes_support import opened


async def heard_by(conn: Connection, heard: asyncio.Queue[str]) -> None:
    """Put the channel of every wake-up into the queue."""
    await conn.add_listener(BATCHES, lambda *told: heard.put_nowait(str(told[2])))


async def until_listening(listener: Listener) -> None:
    """Return when the listener has begun to listen, its first event cleared."""
    while not listener.listening:
        await listener.wait(0.05)
    listener.event.clear()


async def test_many_commits_are_few_wake_ups(gatherer_db: Target) -> None:
    """However often it is poked, a process sends one wake-up per interval, beginning at once."""
    async with opened(gatherer_db) as (pool, conn):
        heard: asyncio.Queue[str] = asyncio.Queue(maxsize=1000)
        await heard_by(conn, heard)
        notifier, stop = Notifier(pool, interval_s=0.05), asyncio.Event()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(notifier.run(stop))
            while heard.qsize() < 4:
                notifier.poke()
                await conn.execute("select 1")
            stop.set()
        # The first at once, the last one at the end.
        assert 4 <= notifier.sent <= (loop.time() - begin) / 0.05 + 2


async def test_a_wake_up_pending_at_the_end_is_still_sent(gatherer_db: Target) -> None:
    """Stopping sends what was asked for before it."""
    async with opened(gatherer_db) as (pool, conn):
        heard: asyncio.Queue[str] = asyncio.Queue(maxsize=1000)
        await heard_by(conn, heard)
        notifier, stop = Notifier(pool, interval_s=30.0), asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(notifier.run(stop))
            notifier.poke()
            await heard.get()
            notifier.poke()
            stop.set()
            assert await heard.get() == BATCHES
        assert notifier.sent == 2
        assert not await notifier.send_once()


async def test_a_lost_wake_up_is_counted_and_harmless() -> None:
    """With the database away a wake-up is lost, not an error."""
    async with open_pool(Target("127.0.0.1", 1, "none", "none", ""), wait=False) as pool:
        notifier = Notifier(pool)
        notifier.poke()
        assert not await notifier.send_once()
        assert (notifier.sent, notifier.failed) == (0, 1)


async def test_a_listener_is_woken_and_waits_otherwise(gatherer_db: Target) -> None:
    """Wait returns True at a wake-up and False when the time is over."""
    async with opened(gatherer_db) as (pool, conn):
        listener, stop = Listener(pool), asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(listener.run(stop))
            await until_listening(listener)
            assert not await listener.wait(0.02)
            await conn.execute("select pg_notify('kd_markets', '')")
            assert not await listener.wait(0.02)
            await conn.execute(f"notify {BATCHES}")
            assert await listener.wait(30)
            assert not await listener.wait(0)
            stop.set()


async def test_listening_is_taken_up_again_after_a_lost_connection(gatherer_db: Target) -> None:
    """A killed connection is replaced, and whoever waits is woken then: something may have been missed."""
    async with opened(gatherer_db) as (pool, conn):
        listener, stop = Listener(pool), asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(listener.run(stop))
            await until_listening(listener)
            await conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            assert await listener.wait(30)
            assert listener.listening
            await conn.execute(f"notify {BATCHES}")
            assert await listener.wait(30)
            stop.set()


async def test_a_database_that_is_not_there_is_waited_for(gatherer_db: Target) -> None:
    """A server without the database ends nobody: wake-ups are lost until it is made, then they are told and heard."""
    there = replace(gatherer_db, database=f"{gatherer_db.database}_later")
    stop = asyncio.Event()
    async with asyncio.timeout(60), opened(gatherer_db) as (_, conn):
        async with open_pool(there, wait=False) as pool, asyncio.TaskGroup() as tasks:
            listener, notifier = Listener(pool), Notifier(pool)
            notifier.poke()
            assert not await notifier.send_once()
            assert notifier.failed == 1
            listening = tasks.create_task(listener.run(stop))
            await asyncio.wait([listening], timeout=0.2)
            assert not listening.done()
            await conn.execute(f"create database {there.database}")
            await until_listening(listener)
            notifier.poke()
            assert await notifier.send_once()
            await listener.event.wait()
            stop.set()
        await conn.execute(f"drop database {there.database} with (force)")
