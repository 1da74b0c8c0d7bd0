"""Waiting for events, always with an end."""

import asyncio


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, at most until stop."""
    await wait_any(stop, timeout_s=seconds)


async def wait_any(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Return when one of the events is set or the time is over."""
    if any(event.is_set() for event in events):
        return
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()
