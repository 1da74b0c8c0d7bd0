"""Living under a lease: renewing it while the work goes on, ending when another process has it."""

from libs.runtime.service import Runtime
from libs.store.errors import StoreError, StoreUnavailable
from libs.store.leases import Lease
from libs.telemetry.logging import get_logger

log = get_logger(__name__)


class LeaseLost(StoreError):
    """Another process holds this lease now; this one must end."""


async def keep_lease(runtime: Runtime, lease: Lease) -> None:
    """Renew the lease every third of its life, until stop; a database that is away takes it from nobody.

    Raises:
        LeaseLost: another process has it.
    """
    while await runtime.sleep(lease.ttl_s / 3):
        try:
            kept = await lease.renew()
        except StoreUnavailable as error:
            log.warning("lease_not_renewed", lease=lease.name, error=str(error))
            continue
        if not kept:
            raise LeaseLost(f"the lease {lease.name} was taken by another process")


async def release(lease: Lease) -> None:
    """Give the lease up, so that a successor need not wait; a database that is away lets it expire."""
    try:
        await lease.release()
    except StoreUnavailable as error:
        log.warning("lease_left", lease=lease.name, error=str(error))
