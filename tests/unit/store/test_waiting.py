"""Waiting for the first of several events."""

import asyncio

from libs.store.waiting import first_of


async def test_one_that_is_set_already_ends_it_at_once() -> None:
    """Without giving way to anybody."""
    event = asyncio.Event()
    event.set()
    assert await first_of(asyncio.Event(), event, timeout_s=0.0)
    assert event.is_set()


async def test_whichever_comes_first_ends_it() -> None:
    """The others stay unset, and nothing is left waiting for them."""
    one, other = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(60):
        waiting = asyncio.ensure_future(first_of(one, other))
        await asyncio.sleep(0)
        other.set()
        assert await waiting
    assert not one.is_set()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_time_that_is_over_says_so() -> None:
    """False, and only then."""
    assert not await first_of(asyncio.Event(), timeout_s=0.001)
