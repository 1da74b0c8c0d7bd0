"""The bundle for support: one tar.gz with what the databases know of every process, the plan, the last gaps and the versions.

Everything in it has gone through the hider; every list is bounded, so that it fits into a mail.
"""

import asyncio
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import IO, Any, Final, LiteralString

from libs.marketdata.units import SECOND, format_rfc3339
from libs.runtime.version import build_info
from libs.store.errors import StoreError
from libs.store.pool import Target, connect, map_store_errors
from services.status.ask import APPLICATION, PRODUCTION, Figures, ask_all, targets
from services.status.redact import Hider, shown_configuration, shown_environment
from services.status.settings import Asked

ROWS_MAX: Final = 1_000
LIBRARIES: Final = ("aiohttp", "asyncpg", "dynaconf", "kopf", "msgspec", "pyarrow", "sqlalchemy")

_SERVER: LiteralString = """
SELECT name, setting, unit, source FROM pg_settings
 WHERE (source NOT IN ('default', 'override', 'client') OR name IN ('server_version', 'server_encoding'))
   AND name !~* 'pass|secret|token|key|credential|conninfo|command' ORDER BY name
"""
"""Without those that may hold a password that we do not know: of a server it follows, of a command, of another extension."""
_SESSIONS: LiteralString = """
SELECT application_name, usename::text AS role, state, count(*) AS sessions, min(backend_start)::text AS since
  FROM pg_stat_activity WHERE datname = current_database() GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_EXTENSIONS: LiteralString = (
    "SELECT extname::text AS name, extversion AS version FROM pg_extension ORDER BY 1"
)
_COMMON: dict[str, LiteralString] = {
    "server": _SERVER,
    "sessions": _SESSIONS,
    "extensions": _EXTENSIONS,
    "leases": "SELECT * FROM leases ORDER BY name LIMIT $1",
    "gaps": "SELECT * FROM gaps ORDER BY received_at DESC LIMIT $1",
}
_OF_ZONE: dict[str, LiteralString] = {
    **_COMMON,
    "shards": "SELECT * FROM shards ORDER BY shard LIMIT $1",
    "plan": "SELECT * FROM slot_assignments ORDER BY slot, shard LIMIT $1",
    "planner": "SELECT * FROM planner",
    "processes": "SELECT process, instance, family, lane, opened_at, closed_at, last_batch_no FROM lanes"
    " ORDER BY closed_at DESC NULLS FIRST, opened_at DESC LIMIT $1",
    "acknowledgements": "SELECT * FROM lane_acknowledgements ORDER BY acknowledged_at DESC LIMIT $1",
    "repairs": "SELECT * FROM trade_repairs ORDER BY repair DESC LIMIT $1",
    "book_checks": "SELECT * FROM book_checks WHERE outcome <> 'agree' ORDER BY checked_at DESC LIMIT $1",
}
_OF_PRODUCTION: dict[str, LiteralString] = {
    **_COMMON,
    "gatherers": "SELECT * FROM gatherers ORDER BY gatherer LIMIT $1",
    "writer": "SELECT * FROM writer_lease",
    "cursors": "SELECT * FROM sync_cursors ORDER BY merged_at DESC LIMIT $1",
    "events": "SELECT * FROM operational_events ORDER BY at DESC LIMIT $1",
    "conflicts": "SELECT at, merge_no, table_name, key FROM conflicts ORDER BY at DESC LIMIT $1",
    "archive_pending": "SELECT * FROM archive_pending ORDER BY window_from LIMIT $1",
    "archive_newest": "SELECT * FROM archive_manifests ORDER BY archived_at DESC LIMIT $1",
}


async def collect(
    asked: Asked, environ: Mapping[str, str], now: int
) -> tuple[dict[str, Figures], dict[str, bytes]]:
    """Return what `status --json` says, and the files of the bundle by name; now: microseconds since the epoch."""
    hider = Hider(asked.layers, environ)
    found, *tables = await asyncio.gather(
        ask_all(asked),
        *(
            _tables(target, is_production=name == PRODUCTION)
            for name, target in targets(asked).items()
        ),
    )
    documents: dict[str, Any] = {
        "status.json": found,
        "versions.json": {"collected_at": format_rfc3339(now), **_versions()},
        "configuration.json": shown_configuration(asked.layers),
        "environment.json": shown_environment(environ, ("KALSHI_DATA_", "POD_", "KUBERNETES_")),
    }
    for name, answers in zip(targets(asked), tables, strict=True):
        documents |= {f"{name}/{table}.json": rows for table, rows in answers.items()}
    return found, {name: _written(hider, document) for name, document in documents.items()}


def write_bundle(file: IO[bytes], members: Mapping[str, bytes], now: int) -> None:
    """Write the files below one folder. Raises OSError."""
    moment = now // SECOND
    folder = f"kalshi-data-{format_rfc3339(moment * SECOND).replace(':', '')}"
    with tarfile.open(fileobj=file, mode="w|gz") as archive:
        for name, content in sorted(members.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), moment, 0o600
            archive.addfile(entry, io.BytesIO(content))


async def _tables(target: Target, *, is_production: bool) -> dict[str, Any]:
    """Ask everything of one database; what cannot be answered says why in its place."""
    answers: dict[str, Any] = {}
    try:
        async with connect(target, APPLICATION) as conn:
            for name, statement in (_OF_PRODUCTION if is_production else _OF_ZONE).items():
                try:
                    with map_store_errors():
                        rows = await conn.fetch(
                            statement, *([ROWS_MAX] if "$1" in statement else [])
                        )
                    answers[name] = [dict(row) for row in rows]
                except StoreError as error:
                    answers[name] = {"error": str(error)}
    except StoreError as error:
        answers["error"] = str(error)
    return answers


def _versions() -> dict[str, Any]:
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = "not installed"
    return {
        "kalshi-data": asdict(build_info()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": libraries,
    }


def _written(hider: Hider, document: Any) -> bytes:
    return (json.dumps(hider.hide(document), indent=1, default=str) + "\n").encode()
