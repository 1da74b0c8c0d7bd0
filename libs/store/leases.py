"""Leases: at most one holder of a name at a time, judged by the database's clock alone.

A lease fences control writes, never capture. It may be taken from another holder only when it has expired AND the judge
has seen the database up, without a break, for one whole lease: after an outage every lease is old and nobody is dead.
A lease that was given up is free at once.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from libs.store.errors import StoreUnavailable
from libs.store.pool import AnyConnection, Pool, map_store_errors
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

POLL_S_MAX: Final = 1.0
"""Seconds between two attempts to take a lease, at most; a quarter of a shorter lease."""

ACQUIRE_S_MAX: Final = 10.0
"""Seconds to wait for a connection of the pool."""

_TAKE = """
with taken as (
    insert into leases (name, holder, epoch, expires_at)
    values ($1, $2, 1, clock_timestamp() + $3::interval)
    on conflict (name) do update set
        holder = excluded.holder,
        epoch = leases.epoch + (leases.holder is distinct from excluded.holder)::int,
        expires_at = clock_timestamp() + $3::interval
    where leases.holder is not distinct from excluded.holder
        or coalesce(leases.expires_at, '-infinity') = '-infinity'
        or (
            leases.expires_at < clock_timestamp()
            and greatest(coalesce($4::timestamptz, 'infinity'), pg_postmaster_start_time())
                <= clock_timestamp() - $3::interval
        )
    returning epoch
)
select clock_timestamp() as seen_at, (select epoch from taken) as epoch
"""

_RENEW = """
update leases set expires_at = clock_timestamp() + $4::interval
where name = $1 and holder = $2 and epoch = $3
returning true
"""

_HOLDS = "select true from leases where name = $1 and holder = $2 and epoch = $3 for update"

_RELEASE = """
update leases set expires_at = '-infinity' where name = $1 and holder = $2 and epoch = $3
"""


class Lease:
    """One name's lease as one holder sees it. ttl_s: seconds a lease lasts without renewal.

    epoch: raised by every take-over by another holder; None until acquired and once it is known to be lost.
    """

    def __init__(self, pool: Pool, name: str, holder: UUID, ttl_s: float) -> None:
        self._pool = pool
        self._ttl = timedelta(seconds=ttl_s)
        self._poll_s = min(POLL_S_MAX, ttl_s / 4)
        self._seen_since: datetime | None = None
        self.name = name
        self.holder = holder
        self.ttl_s = ttl_s
        self.epoch: int | None = None

    async def acquire(self, stop: asyncio.Event) -> bool:
        """Wait until the lease is ours (True) or stop is set (False); the database may be away meanwhile.

        Raises:
            StoreError: what is not worth another attempt (refused, not migrated).
        """
        while not stop.is_set():
            try:
                if await self.take_once():
                    return True
            except StoreUnavailable as error:
                log.warning("lease_unknown", lease=self.name, error=str(error))
            try:
                async with asyncio.timeout(self._poll_s):
                    await stop.wait()
            except TimeoutError:
                continue
        return False

    async def take_once(self) -> bool:
        """Take the lease if it is free, ours, or another's that may be judged expired; one statement.

        Raises:
            StoreUnavailable: the database is away; judging begins anew.
        """
        # None until the answer is in: whatever interrupts this, the database was not seen up.
        since, self._seen_since = self._seen_since, None
        with map_store_errors():
            async with self._pool.acquire(timeout=ACQUIRE_S_MAX) as conn:
                # Without an earlier sight of the database (NULL: infinity) this attempt cannot judge anybody.
                row = await conn.fetchrow(_TAKE, self.name, self.holder, self._ttl, since)
        assert row is not None
        self._seen_since = since or row["seen_at"]
        self.epoch = row["epoch"]
        return self.epoch is not None

    async def renew(self) -> bool:
        """Prolong the lease under the same epoch; False when another holder has it, and then for good.

        An expired lease that nobody took is prolonged too.

        Raises:
            StoreUnavailable: the database is away; the lease may still be ours.
        """
        if self.epoch is None:
            return False
        with map_store_errors():
            async with self._pool.acquire(timeout=ACQUIRE_S_MAX) as conn:
                kept = await conn.fetchval(_RENEW, self.name, self.holder, self.epoch, self._ttl)
        if not kept:
            self.epoch = None
        return bool(kept)

    async def holds(self, conn: AnyConnection) -> bool:
        """Lock the lease row inside the caller's transaction and say whether it is ours: fences a control write.

        Raises:
            StoreUnavailable: the database is away.
        """
        with map_store_errors():
            return bool(await conn.fetchval(_HOLDS, self.name, self.holder, self.epoch))

    async def release(self) -> None:
        """Give the lease up at once, if it is ours.

        Raises:
            StoreUnavailable: the database is away; the lease ends by itself.
        """
        epoch, self.epoch = self.epoch, None
        if epoch is None:
            return
        with map_store_errors():
            async with self._pool.acquire(timeout=ACQUIRE_S_MAX) as conn:
                await conn.execute(_RELEASE, self.name, self.holder, epoch)
