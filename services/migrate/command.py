"""`kalshi-data migrate`: which databases, from a configuration file, an address, or several targets at once."""

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args
from urllib.parse import unquote, urlsplit

from libs.runtime.layers import sections_of
from libs.runtime.sections import DEDUPLICATOR_FILE, GATHERER_FILE, LogSettings
from libs.runtime.settings import ConfigInvalid, load_settings
from libs.store.errors import SchemaMismatch, StoreError
from libs.store.partitions import DatabaseKind
from libs.store.pool import Target
from libs.telemetry import logging
from services.migrate.migration import Migration, ZoneMissing, migrate_all
from services.migrate.roles import read_logins
from services.migrate.settings import GathererSettings, ProductionSettings

EXIT_OK, EXIT_FAULT, EXIT_CONFIG, EXIT_SCHEMA = 0, 1, 2, 5
STATEMENT_TIMEOUT_S = 600.0
"""A statement of a migration may rewrite a table; a service's limit is too short for that."""

WAIT_S = 600.0
"""A database that is being installed is there within some minutes; whoever started us tries again."""

_TARGET = re.compile(
    r"(?P<kind>gatherer|production)(?::(?P<zone>[^=]+))?="
    r"(?:(?P<user>[^@]+)@)?(?:(?P<host>[^:/]+):)?(?P<port>\d+)/(?P<database>[^:]+):(?P<password>.+)"
)


def main(argv: Sequence[str]) -> int:
    """Parse and run.

    Returns:
        0 done, or stopped while waiting; 1 the database is away for too long or refuses; 2 arguments or configuration;
        5 the database is too new for this code.
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
        return asyncio.run(_run(wanted, arguments.wait_s))
    except (StoreError, ZoneMissing) as error:
        sys.stderr.write(f"migrate: {error}\n")
        if isinstance(error, ZoneMissing):
            return EXIT_CONFIG
        return EXIT_SCHEMA if isinstance(error, SchemaMismatch) else EXIT_FAULT


async def _run(wanted: Sequence[Migration], wait_s: float) -> int:
    """Migrate until done or told to stop; a stop ends the waiting, never a revision in the middle."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await migrate_all(wanted, stop=stop, wait_s=wait_s)
    except StoreError:
        if not stop.is_set():
            raise
    return EXIT_OK


def _wanted(arguments: argparse.Namespace) -> tuple[list[Migration], LogSettings]:
    text = LogSettings(format="text")
    if arguments.target:
        if arguments.roles:
            raise ConfigInvalid(["--roles: is for one database, not for --target"])
        return [parse_target(given) for given in arguments.target], text
    logins = read_logins(arguments.roles) if arguments.roles else ()
    kind = _kind(arguments)
    if arguments.dsn:
        target = parse_dsn(arguments.dsn, arguments.password_file)
        return [Migration(target, kind, arguments.zone, logins)], text
    one, log = _configured(kind, arguments.config, arguments.zone)
    return [replace(one, logins=logins)], log


def _kind(arguments: argparse.Namespace) -> DatabaseKind:
    """Return which schema is wanted: as told, else as the file's sections say."""
    told: DatabaseKind | None = arguments.database
    if told is not None:
        return told
    sections = sections_of(arguments.config) if arguments.config and not arguments.dsn else ()
    if ("store" in sections) == ("production" in sections):
        raise ConfigInvalid(["--database: say gatherer or production"])
    return "gatherer" if "store" in sections else "production"


def _configured(
    kind: DatabaseKind, config: Path | None, zone: str | None
) -> tuple[Migration, LogSettings]:
    if kind == "production":
        production = load_settings(ProductionSettings, config, foreign=DEDUPLICATOR_FILE).value
        return Migration(_patient(production.production.target()), kind), production.log
    gatherer = load_settings(GathererSettings, config, foreign=GATHERER_FILE).value
    target = _patient(gatherer.store.target())
    return Migration(target, kind, zone or gatherer.zone), gatherer.log


def _patient(target: Target) -> Target:
    return replace(target, pool_size_max=1, statement_timeout_s=STATEMENT_TIMEOUT_S)


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
        "--database",
        choices=get_args(DatabaseKind),
        help="which of the two schemas; default: as the file's sections say",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="gatherer.yaml or deduplicator.yaml; default: KALSHI_DATA_CONFIG, else the environment alone",
    )
    parser.add_argument(
        "--roles",
        type=Path,
        metavar="DIR",
        help="who may log in: DIR/ROLE/username and DIR/ROLE/password, ROLE one of owner, writer, reader, planner,"
        " archiver, status; made or changed at every run",
    )
    parser.add_argument(
        "--wait-s",
        type=float,
        default=WAIT_S,
        help=f"longest to wait for the database, seconds; default: {WAIT_S:g}",
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
