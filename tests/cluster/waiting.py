"""Waiting with a bound, and saying how it goes while it does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.cluster.errors import CommandFailed, NotInTime

T = TypeVar("T")
EVERY_S = 1.0
SAY_EVERY_S = 15.0
Say = Callable[[str], None]
Look = Callable[[], Awaitable[bool]]


async def until(
    look: Callable[[], Awaitable[T]],
    holds: Callable[[T], bool],
    within_s: float,
    what: str,
    *,
    say: Say = lambda text: None,
    every_s: float = EVERY_S,
) -> T:
    """Look until what is seen holds, and return it; a look that fails, or has half an answer, is repeated, since a cluster is
    in motion.

    Raises:
        NotInTime: it does not hold after within_s; the message ends with what was seen last.
    """
    begun = said = time.monotonic()
    seen: object = "nothing yet"
    while True:
        try:
            seen = found = await look()
            if holds(found):
                return found
        except (CommandFailed, LookupError, ValueError) as error:
            seen = error if isinstance(error, CommandFailed) else repr(error)
        now = time.monotonic()
        if now - begun > within_s:
            raise NotInTime(f"not within {within_s:.0f} s: {what}; last seen: {seen}")
        if now - said > SAY_EVERY_S:
            said = now
            say(f"... {what}: {str(seen)[:160]}")
        await asyncio.sleep(every_s)


async def until_true(
    look: Look,
    within_s: float,
    what: str,
    *,
    say: Say = lambda text: None,
    every_s: float = EVERY_S,
) -> float:
    """Wait until something is so; return how long that took, seconds. Raises NotInTime."""
    begun = time.monotonic()
    await until(look, bool, within_s, what, say=say, every_s=every_s)
    return time.monotonic() - begun
