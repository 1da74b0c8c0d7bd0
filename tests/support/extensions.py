"""A stand-in for TimescaleDB on a server that has none: files of an extension by its name, without a library.

PostgreSQL looks for extensions outside its own directory from version 18 on, so the server is one of that version.
"""

import importlib.util
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from libs.store.pool import Target, connect
from services.local.postgres import EmbeddedPostgres
from services.local.postgres_home import WHEEL
from tests.support.postgres import run, scratch_directory

VERSIONS: tuple[str, ...] = ("2.9.1", "2.29.2", "2.30.0")
"""What can be installed; the server's own is the middle one, as after an image was taken back from the last."""
OWN = VERSIONS[1]
WAYS = ("2.9.1--2.29.2", "2.9.1--2.30.0", "2.29.2--2.30.0")

_numbers = itertools.count(1)


class StandIn(NamedTuple):
    """A fresh database, its server, and the folder of the extension's files, which is the database's own."""

    target: Target
    server: EmbeddedPostgres
    files: Path

    def add(self, name: str) -> None:
        """Lay another version, or a way from one to another, beside them."""
        (self.files / f"timescaledb--{name}.sql").write_text("SELECT 1;\n", encoding="utf-8")

    async def install(self, version: str) -> None:
        """Make it a database in which this version was installed."""
        async with connect(self.target) as conn:
            await conn.execute(f"CREATE EXTENSION timescaledb VERSION '{version}'")

    async def installed(self) -> str | None:
        """Return the version that is installed now."""
        async with connect(self.target) as conn:
            found: str | None = await conn.fetchval(
                "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
            )
            return found


@pytest.fixture(scope="module")
def server_18() -> Iterator[tuple[EmbeddedPostgres, Path]]:
    """A server that finds extensions where it is told to, and a directory that it can read."""
    spec = importlib.util.find_spec(WHEEL)
    found = sorted(Path(spec.origin).parent.glob("pginstall18/bin")) if spec and spec.origin else []
    if not found:
        pytest.skip("no PostgreSQL 18 among the installed packages")
    directory = scratch_directory()
    server = EmbeddedPostgres(directory / "server", bin_dir=found[0], sync_init=False)
    try:
        run(server.start())
        yield server, directory
    finally:
        run(server.kill())
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def stand_in(server_18: tuple[EmbeddedPostgres, Path]) -> StandIn:
    """A database whose sessions find the files."""
    server, directory = server_18
    name = f"stand_in_{next(_numbers)}"
    files = directory / name / "extension"
    files.mkdir(parents=True)
    (files / "timescaledb.control").write_text(f"default_version = '{OWN}'\n", encoding="utf-8")
    made = StandIn(run(_database(server, name, files.parent)), server, files)
    for one in (*VERSIONS, *WAYS):
        made.add(one)
    return made


async def _database(server: EmbeddedPostgres, name: str, path: Path) -> Target:
    target = await server.create_database(name)
    async with connect(target) as conn:
        await conn.execute(f"ALTER DATABASE {name} SET extension_control_path = '{path}:$system'")
    return target
