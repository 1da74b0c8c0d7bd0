"""`kalshi-data migrate`: which databases, from a configuration file, an address, or several targets at once."""

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlsplit

from libs.runtime.sections import DEDUPLICATOR_FILE, GATHERER_FILE, LogSettings
from libs.runtime.settings import ConfigInvalid, load_settings
from libs.store.errors import SchemaMismatch, StoreError
from libs.store.partitions import DatabaseKind
from libs.store.pool import Target
from libs.telemetry import logging
from services.migrate.migration import Migration, ZoneMissing, migrate_all
from services.migrate.settings import GathererSettings, ProductionSettings

EXIT_OK, EXIT_FAULT, EXIT_CONFIG, EXIT_SCHEMA = 0, 1, 2, 5
STATEMENT_TIMEOUT_S = 600.0
"""A statement of a migration may rewrite a table; a service's limit is too short for that."""

_TARGET = re.compile(
    r"(?P<kind>gatherer|production)(?::(?P<zone>[^=]+))?="
    r"(?:(?P<user>[^@]+)@)?(?:(?P<host>[^:/]+):)?(?P<port>\d+)/(?P<database>[^:]+):(?P<password>.+)"
)


def main(argv: Sequence[str]) -> int:
    """Parse and run.

    Returns:
        0 done, or stopped while waiting; 1 the database is away or refuses; 2 arguments or configuration; 5 the
        database is newer than this code.
    """
    arguments = _parser().parse_args(argv)
    try:
        wanted, log = _wanted(arguments)
    except ConfigInvalid as error:
        sys.stderr.write("migrate: the configuration is not usable:\n")
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        return EXIT_CONFIG
    logging.configure(log.format, log.level, "migrate", "")
    try:
        return asyncio.run(_run(wanted))
    except (StoreError, ZoneMissing) as error:
        sys.stderr.write(f"migrate: {error}\n")
        if isinstance(error, ZoneMissing):
            return EXIT_CONFIG
        return EXIT_SCHEMA if isinstance(error, SchemaMismatch) else EXIT_FAULT


async def _run(wanted: Sequence[Migration]) -> int:
    """Migrate until done or told to stop; a stop ends the waiting, never a revision in the middle."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await migrate_all(wanted, stop=stop)
    except StoreError:
        if not stop.is_set():
            raise
    return EXIT_OK


def _wanted(arguments: argparse.Namespace) -> tuple[list[Migration], LogSettings]:
    text = LogSettings(format="text")
    if arguments.target:
        return [parse_target(given) for given in arguments.target], text
    kind: DatabaseKind | None = arguments.database
    if kind is None:
        raise ConfigInvalid(["--database: say gatherer or production"])
    if arguments.dsn:
        target = parse_dsn(arguments.dsn, arguments.password_file)
        return [Migration(target, kind, arguments.zone)], text
    return _configured(kind, arguments.config, arguments.zone)


def _configured(
    kind: DatabaseKind, config: Path | None, zone: str | None
) -> tuple[list[Migration], LogSettings]:
    if kind == "production":
        production = load_settings(ProductionSettings, config, foreign=DEDUPLICATOR_FILE).value
        return [_of_store(production.production.target(), kind, None)], production.log
    gatherer = load_settings(GathererSettings, config, foreign=GATHERER_FILE).value
    return [_of_store(gatherer.store.target(), kind, zone or gatherer.zone)], gatherer.log


def _of_store(target: Target, kind: DatabaseKind, zone: str | None) -> Migration:
    return Migration(_patient(target), kind, zone)


def _patient(target: Target) -> Target:
    return Target(
        target.host, target.port, target.database, target.user, target.password,
        pool_size_max=1, connect_timeout_s=target.connect_timeout_s, statement_timeout_s=STATEMENT_TIMEOUT_S,
    )  # fmt: skip


def parse_dsn(dsn: str, password_file: Path | None = None) -> Target:
    """Read postgresql://user[:password]@host[:port]/database; the password may come from a file or PGPASSWORD.

    Raises:
        ConfigInvalid: not such an address, or no password anywhere.
    """
    parts = urlsplit(dsn)
    database = parts.path.removeprefix("/")
    if parts.scheme not in ("postgresql", "postgres") or not (
        parts.hostname and parts.username and database
    ):
        raise ConfigInvalid(["--dsn: expected postgresql://user@host:port/database"])
    password = unquote(parts.password) if parts.password else os.environ.get("PGPASSWORD")
    if password_file is not None:
        password = _read_password(password_file)
    if password is None:
        raise ConfigInvalid(["--dsn: no password in it; use --password-file or PGPASSWORD"])
    user = unquote(parts.username)
    return _patient(Target(parts.hostname, parts.port or 5432, unquote(database), user, password))


def parse_target(given: str) -> Migration:
    """Read KIND[:ZONE]=[USER@][HOST:]PORT/DATABASE:PASSWORD_FILE; user postgres and this machine by default.

    Raises:
        ConfigInvalid: another form, or the file cannot be read.
    """
    match = _TARGET.fullmatch(given)
    if match is None:
        form = "KIND[:ZONE]=[USER@][HOST:]PORT/DATABASE:PASSWORD_FILE"
        raise ConfigInvalid([f"--target {given}: expected {form}"])
    found = match.groupdict()
    kind: DatabaseKind = "gatherer" if found["kind"] == "gatherer" else "production"
    host, user = found["host"] or "127.0.0.1", found["user"] or "postgres"
    password = _read_password(Path(found["password"]))
    target = Target(host, int(found["port"]), found["database"], user, password)
    return Migration(_patient(target), kind, found["zone"])


def _read_password(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigInvalid(
            [f"the password file {file} cannot be read: {error.strerror}"]
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kalshi-data migrate",
        description="Bring databases to this version's schema; waits for them, and for another migration of them.",
    )
    parser.add_argument(
        "--database", choices=get_args(DatabaseKind), help="which of the two schemas"
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="gatherer.yaml or deduplicator.yaml; default: KALSHI_DATA_CONFIG, else the environment alone",
    )
    parser.add_argument("--dsn", help="postgresql://user@host:port/database instead of a file")
    parser.add_argument("--password-file", type=Path, help="the password for --dsn")
    parser.add_argument("--zone", help="the zone's label for a new gatherer; default: the file's")
    parser.add_argument(
        "--target",
        action="append",
        metavar="KIND[:ZONE]=[USER@][HOST:]PORT/DATABASE:PASSWORD_FILE",
        help="one of several databases to migrate at once",
    )
    return parser
