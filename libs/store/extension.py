"""TimescaleDB after a new image: the extension in the database is brought to the version the server has."""

from typing import Final

from libs.store.pool import AnyConnection, Target, connect, map_store_errors
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

# Without it any statement would load the library of the installed version, which a new image may not have any more.
_NOT_LOADED: Final = {"timescaledb.disable_load": "on"}
_VERSIONS = """
select installed.extversion as installed, there.default_version as there
from pg_extension installed join pg_available_extensions there on there.name = installed.extname
where installed.extname = 'timescaledb' and there.default_version <> installed.extversion
"""
_UPDATE = "ALTER EXTENSION timescaledb UPDATE"


async def update_timescale(target: Target, guard: AnyConnection) -> bool:
    """Update the extension where an older version of it is installed; True when there was one.

    Args:
        guard: a connection that holds the migration's lock and has not loaded the extension (see unloaded_session).

    Raises:
        StoreUnavailable: the database is away. StoreRefused: the extension is not ours to update.
    """
    with map_store_errors():
        found = await guard.fetchrow(_VERSIONS)
    if found is None:
        return False
    # It must be the first statement of a session: afterwards the old version's library is loaded.
    async with connect(target, "kalshi-data migrate") as conn:
        with map_store_errors():
            await conn.execute(_UPDATE)
    log.info("timescaledb_updated", before=found["installed"], now=found["there"])
    return True


def unloaded_session() -> dict[str, str]:
    """Return the settings of a session in which the extension's library stays unloaded."""
    return dict(_NOT_LOADED)
