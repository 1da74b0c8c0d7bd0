"""A zone's database never meets a full disk: above its limit deltas and tickers are held back, the rest goes on.

What is held back waits in memory, then in the disk spool; only when both are full it is dropped, and that is a gap of its
own cause. Trades, lifecycle and all else of the process go on being committed: they are little, and what is lost of them
cannot be asked for again. Below the limit by a margin everything resumes by itself, in its order. While the size is not
known (the database is away) what was seen last stands; nothing of them is committed before the first look.
"""

import asyncio
import enum
from typing import Final

from libs.marketdata.tables import Family
from libs.runtime.service import Runtime
from libs.store.borrowing import borrow_patiently
from libs.store.errors import StoreUnavailable
from libs.store.pool import Pool
from libs.store.storage_size import read_size
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

HELD: Final = frozenset({Family.DELTAS, Family.TICKERS})
"""What is held back: nearly all of the bytes."""
NEAR: Final = 0.9
"""Part of the limit from which on somebody is to be told."""
RESUMED: Final = 0.95
"""Part of the limit below which what was held back resumes: what it adds at once must not fill the disk again."""
LOOK_S = 5.0
"""Seconds between two looks; a zone writes some ten MB in it."""
ACQUIRE_S_MAX = 5.0


class Level(enum.IntEnum):
    """How full the database is. NEAR: above 90 % of its limit; FULL: above it, and not yet below 95 % of it again."""

    OK = 0
    NEAR = 1
    FULL = 2


class Storage:
    """The limit and what was seen last.

    bytes_max: 0 for no limit. size_bytes: None until it is known. has_looked: after the first look, also one that failed.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size_bytes: int | None = None
        self.level = Level.OK
        self.has_looked = not bytes_max

    def see(self, size_bytes: int) -> bool:
        """Take a size; True when the level changed."""
        before, self.size_bytes, self.has_looked = self.level, size_bytes, True
        if not self.bytes_max:
            return False
        until = RESUMED if before is Level.FULL else 1.0
        if size_bytes > self.bytes_max * until:
            self.level = Level.FULL
        else:
            self.level = Level.NEAR if size_bytes > self.bytes_max * NEAR else Level.OK
        return self.level is not before

    def holds(self, family: Family) -> bool:
        """True while this family's batches are not to be committed."""
        return family in HELD and (self.level is Level.FULL or not self.has_looked)

    @property
    def is_full(self) -> bool:
        """True above the limit, and until there is room again."""
        return self.level is Level.FULL

    def describe(self) -> dict[str, object]:
        """Return what /health shows."""
        held = sorted(family.value for family in Family if self.holds(family))
        return {
            "bytes": self.size_bytes,
            "bytes_max": self.bytes_max,
            "level": self.level.name.lower(),
            "held": held,
        }


async def keep_looking(
    storage: Storage, pool: Pool, runtime: Runtime, ended: asyncio.Event
) -> None:
    """Look at the database's size until the end; nothing is asked without a limit."""
    runtime.metrics.storage_bytes_max.set(storage.bytes_max)
    while storage.bytes_max and not ended.is_set():
        try:
            await look_once(storage, pool, runtime)
        except StoreUnavailable as error:
            storage.has_looked = True
            log.debug("storage_unknown", error=str(error))
        await first_of(ended, timeout_s=LOOK_S)
    await ended.wait()


async def look_once(storage: Storage, pool: Pool, runtime: Runtime) -> None:
    """Look at the size, and say when the level changed.

    Raises:
        StoreUnavailable: the database is away.
    """
    async with borrow_patiently(pool, ACQUIRE_S_MAX) as conn:
        size = await read_size(conn)
    before = storage.level
    changed = storage.see(size)
    runtime.metrics.storage_bytes.set(size)
    runtime.metrics.storage_level.set(storage.level)
    if not changed:
        return
    if storage.level is Level.FULL:
        log.error("storage_full", bytes=size, bytes_max=storage.bytes_max, held=sorted(HELD))
    elif storage.level is Level.NEAR and before is Level.OK:
        log.warning("storage_nearly_full", bytes=size, bytes_max=storage.bytes_max)
    else:
        log.info("storage_has_room", bytes=size, bytes_max=storage.bytes_max)
