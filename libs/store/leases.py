"""Leases: at most one holder of a name at a time, judged by the database's clock alone.

A lease fences control writes, never capture. It may be taken from another holder only when it has expired AND the judge
has seen the database up, without a break, for one whole lease: after an outage every lease is old and nobody is dead.
"""

import asyncio
from uuid import UUID

from libs.store.pool import AnyConnection, Pool


class Lease:
    """One name's lease as one holder sees it. ttl_s: seconds a lease lasts without renewal."""

    def __init__(self, pool: Pool, name: str, holder: UUID, ttl_s: float) -> None:
        self._pool = pool
        self.name = name
        self.holder = holder
        self.ttl_s = ttl_s
        self.epoch: int | None = None

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until the lease is ours (True) or stop is set (False); the database may be away meanwhile."""
        raise NotImplementedError

    async def renew(self) -> bool:
        """Prolong the lease under the same epoch; False when another holder has it.

        Raises:
            StoreUnavailable: the database is away; the lease may still be ours.
        """
        raise NotImplementedError

    async def holds(self, conn: AnyConnection) -> bool:
        """Inside the caller's transaction: lock the lease row and say whether it is still ours; fences a control write."""
        raise NotImplementedError

    async def release(self) -> None:
        """Give the lease up at once, if it is ours.

        Raises:
            StoreUnavailable: the database is away; the lease ends by itself.
        """
        raise NotImplementedError
