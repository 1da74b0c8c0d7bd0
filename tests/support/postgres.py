"""A PostgreSQL server for tests: one per test process, and a fresh migrated database for each test that asks for one.

Safe settings (services refuse others), but on a memory file system where there is one. KALSHI_TEST_POSTGRES_BIN names
another server's programs, KALSHI_TEST_TIMESCALE=1 loads TimescaleDB into it.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from libs.store.partitions import DatabaseKind
from libs.store.pool import Target, connect
from services.local.postgres import EmbeddedPostgres
from services.migrate.migration import Migration, migrate_all

T = TypeVar("T")
NewDatabase = Callable[..., Target]
"""new_database(kind, zone="a") -> Target of a fresh migrated database, dropped after the test."""

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BYTES_MIN = 2 << 30
_numbers = itertools.count(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, leaving pytest's loops alone; inside a running loop, in a thread.

    A server must not be started in a thread: it dies with the thread that starts it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_run, work).result()


def _run(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def with_timescale() -> bool:
    """True when the test server loads TimescaleDB."""
    return os.environ.get("KALSHI_TEST_TIMESCALE") == "1"


plain_only = pytest.mark.skipif(
    with_timescale(), reason="about native partitions: hypertables make their chunks themselves"
)
"""Marks tests of what TimescaleDB does not have: partitions ahead of their rows, a default partition."""


def server_settings() -> dict[str, str]:
    """Return what the test server has beyond the embedded server's own settings."""
    # Tests tell what is summarised and analysed when; autovacuum would come at a time of its own.
    settings = {"autovacuum": "off"}
    if not with_timescale():
        return settings
    return settings | {
        "shared_preload_libraries": "timescaledb",
        "timescaledb.telemetry_level": "off",
        # Its workers would hold on to the template databases.
        "timescaledb.max_background_workers": "0",
    }


def server_programs() -> Path | None:
    """Return the directory that KALSHI_TEST_POSTGRES_BIN names, if any."""
    named = os.environ.get("KALSHI_TEST_POSTGRES_BIN")
    return Path(named) if named else None


def scratch_directory() -> Path:
    """Make a directory for servers of this test process, in memory where there is room."""
    roomy = SHARED_MEMORY.is_dir() and (
        shutil.disk_usage(SHARED_MEMORY).free >= SHARED_MEMORY_BYTES_MIN
    )
    base = SHARED_MEMORY if roomy else Path(tempfile.gettempdir())
    _remove_stale(base)
    directory = Path(tempfile.mkdtemp(prefix=f"kalshi-data-test-{os.getpid()}-", dir=base))
    directory.chmod(0o755)
    return directory


def _remove_stale(base: Path) -> None:
    """Remove what killed test processes left behind."""
    for directory in base.glob("kalshi-data-test-*"):
        pid = directory.name.split("-")[3]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """A running server with the two template databases; one per test process."""
    directory = scratch_directory()
    server = EmbeddedPostgres(
        directory / "server", bin_dir=server_programs(), settings=server_settings(), sync_init=False
    )
    try:
        run(server.start())
        run(_make_templates(server))
        yield server
    finally:
        run(server.kill())
        shutil.rmtree(directory, ignore_errors=True)


async def _make_templates(server: EmbeddedPostgres) -> None:
    gatherer = await server.create_database("template_gatherer")
    production = await server.create_database("template_production")
    await migrate_all([Migration(gatherer, "gatherer", "a"), Migration(production, "production")])
    await server.share_password()
    async with connect(server.target()) as conn:
        # So that no connection of anybody keeps a template from being copied.
        for name in ("template_gatherer", "template_production"):
            await conn.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
            )


@pytest.fixture
def new_database(postgres_server: EmbeddedPostgres) -> Iterator[NewDatabase]:
    """Return what makes a fresh database of a kind and zone; all are dropped after the test."""
    made: list[str] = []

    def make(kind: DatabaseKind, zone: str = "a") -> Target:
        name = f"test_{kind}_{next(_numbers)}"
        made.append(name)
        return run(_copy_template(postgres_server, name, kind, zone))

    yield make
    if made and postgres_server.alive:
        run(_drop(postgres_server, made))


async def _copy_template(
    server: EmbeddedPostgres, name: str, kind: DatabaseKind, zone: str
) -> Target:
    async with connect(server.target()) as conn:
        await conn.execute(f"CREATE DATABASE {name} TEMPLATE template_{kind}")
    target = server.target(name)
    if kind == "gatherer":
        async with connect(target) as conn:
            await conn.execute(
                "UPDATE gatherer_identity SET identity = gen_random_uuid(), zone = $1", zone
            )
    return target


async def _drop(server: EmbeddedPostgres, names: list[str]) -> None:
    async with connect(server.target()) as conn:
        for name in names:
            await conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def gatherer_db(new_database: NewDatabase) -> Target:
    """A fresh gatherer database of zone "a" with an identity of its own, as superuser."""
    return new_database("gatherer")


@pytest.fixture
def production_db(new_database: NewDatabase) -> Target:
    """A fresh production database, as superuser."""
    return new_database("production")
