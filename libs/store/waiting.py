"""Waiting for events, always with an end. Here and not in libs.flow, whose rooms know no loop."""

import asyncio


async def first_of(*events: asyncio.Event, timeout_s: float | None = None) -> bool:
    """Wait until one of the events is set; False when timeout_s seconds were over first.

    Returns at once when one is set already. Clears nothing.
    """
    if any(event.is_set() for event in events):
        return True
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(
            waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for task in waiting:
            task.cancel()
    return bool(done)
