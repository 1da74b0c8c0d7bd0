"""TimescaleDB after a new image: the extension in the database is brought to the version the server has."""

import re
from typing import Final

from libs.store.pool import AnyConnection, Target, connect, map_store_errors
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

# Without it any statement would load the library of the installed version, which a new image may not have any more.
_NOT_LOADED: Final = {"timescaledb.disable_load": "on"}
_VERSIONS = """
select installed.extversion as installed, there.default_version as there, exists (
  select from pg_extension_update_paths(there.name)
  where source = installed.extversion and target = there.default_version and path is not null
) as has_way
from pg_extension installed join pg_available_extensions there on there.name = installed.extname
where installed.extname = 'timescaledb' and there.default_version <> installed.extversion
"""
_UPDATE = "ALTER EXTENSION timescaledb UPDATE"


async def update_timescale(target: Target, guard: AnyConnection) -> bool:
    """Update the extension where an older version of it is installed; True when there was one.

    A server with an older version than the installed one (an image that was taken back) is left as it is, and warned of: there
    is no way back, and its image may have no library for the database.

    Args:
        guard: a connection that holds the migration's lock and has not loaded the extension (see unloaded_session).

    Raises:
        StoreUnavailable: the database is away. StoreRefused: the extension is not ours to update.
    """
    with map_store_errors():
        found = await guard.fetchrow(_VERSIONS)
    if found is None:
        return False
    if not (found["has_way"] and _is_newer(found["there"], found["installed"])):
        log.warning(
            "timescaledb_not_updated",
            database=target.address,
            installed=found["installed"],
            there=found["there"],
            advice="the server knows no way to its version: keep the newer database.image",
        )
        return False
    # It must be the first statement of a session: afterwards the old version's library is loaded.
    async with connect(target, "kalshi-data migrate") as conn:
        with map_store_errors():
            await conn.execute(_UPDATE)
    log.info("timescaledb_updated", before=found["installed"], now=found["there"])
    return True


def _is_newer(one: str, other: str) -> bool:
    """By the numbers of a version; what follows a dash (2.30.0-dev) does not count."""
    return _numbers(one) > _numbers(other)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]


def unloaded_session() -> dict[str, str]:
    """Return the settings of a session in which the extension's library stays unloaded."""
    return dict(_NOT_LOADED)
