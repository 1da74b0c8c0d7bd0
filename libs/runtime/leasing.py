"""Living under a lease: waiting for it, renewing it while the work goes on, ending when another process has it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from libs.runtime.service import Runtime
from libs.store.errors import StoreError, StoreUnavailable
from libs.store.leases import Lease
from libs.store.pool import Pool
from libs.telemetry.logging import get_logger

log = get_logger(__name__)


class LeaseLost(StoreError):
    """Another process holds this lease now; this one must end."""


@asynccontextmanager
async def leased(
    pool: Pool, name: str, instance: UUID, ttl_s: float, runtime: Runtime
) -> AsyncIterator[Lease | None]:
    """Wait for the lease and hold it for as long as it is entered; None when stop came first.

    Not ready meanwhile, and /readyz says why. Who enters renews it (keep_lease). ttl_s: seconds without renewal.

    Raises:
        StoreError: what waiting does not mend (refused, not migrated).
    """
    lease = Lease(pool, name, instance, ttl_s)
    runtime.health.set_ready(False, "waiting for the lease")
    if not await lease.acquire(runtime.stop):
        yield None
        return
    try:
        yield lease
    finally:
        await _release(lease)


async def keep_lease(runtime: Runtime, lease: Lease, done: asyncio.Event | None = None) -> None:
    """Renew the lease every third of its life, until stop; a database that is away takes it from nobody.

    Args:
        done: set by work that goes on after stop, when it has ended; the lease is kept until then.

    Raises:
        LeaseLost: another process has it.
    """
    while await runtime.sleep(lease.ttl_s / 3, done):
        try:
            await renew_or_end(lease)
        except StoreUnavailable as error:
            log.warning("lease_not_renewed", lease=lease.name, error=str(error))


async def renew_or_end(lease: Lease) -> None:
    """Renew the lease: before what only its holder may do.

    Raises:
        LeaseLost: another process has it.
        StoreUnavailable: the database is away; the lease may still be ours.
    """
    if not await lease.renew():
        raise LeaseLost(f"the lease {lease.name} was taken by another process")


async def _release(lease: Lease) -> None:
    """Give the lease up, so that a successor need not wait; a database that is away lets it expire."""
    try:
        await lease.release()
    except StoreUnavailable as error:
        log.warning("lease_left", lease=lease.name, error=str(error))
