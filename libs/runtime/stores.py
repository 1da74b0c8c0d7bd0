"""A service's way into its database: waiting for it, for the login and for the schema, and saying which."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.runtime.sections import StoreSettings
from libs.runtime.service import Runtime
from libs.store.partition_plan import DatabaseKind
from libs.store.pool import Pool, open_pool
from libs.store.schema import wait_for_level


@asynccontextmanager
async def open_store(
    store: StoreSettings, kind: DatabaseKind, runtime: Runtime, *, application: str
) -> AsyncIterator[Pool]:
    """Open the pool once the database is there, lets us in and has a schema for this code; close it at the end.

    Not ready meanwhile, and /readyz says what is waited for. A refused login is waited for like an absent server: where
    everything is installed at once the migration makes roles and schema while services already start.

    Raises:
        StoreUnavailable: stop came first.
    """

    def tell(reason: str) -> None:
        runtime.health.set_ready(False, f"waiting for the database: {reason}")

    async with open_pool(
        store.target(), patient=True, stop=runtime.stop, application=application, tell=tell
    ) as pool:
        await wait_for_level(pool, kind, runtime.stop, tell)
        yield pool
