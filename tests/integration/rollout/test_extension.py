"""The script that updates TimescaleDB, run by a shell with the server's own psql, as in a database's container."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from libs.store.errors import StoreUnavailable
from libs.store.pool import Target, connect, map_store_errors
from services.local.postgres import EmbeddedPostgres
from services.rollout.extension import SCRIPT, read_extension
from tests.support.extensions import OWN, StandIn, server_18, stand_in
from tests.support.postgres import run, with_timescale

__all__ = ["server_18", "stand_in"]

GONE = "2.28.2"
"""A version from which this server's files know the way, but whose library is not there: an image without old ones."""


@pytest.fixture
def environ(
    gatherer_db: Target, postgres_server: EmbeddedPostgres, tmp_path: Path
) -> dict[str, str]:
    """What a database's container has; the port is ours."""
    return container(gatherer_db, postgres_server, tmp_path)


def container(target: Target, server: EmbeddedPostgres, folder: Path) -> dict[str, str]:
    """Return the variables of this database's container."""
    secret = folder / "password"
    secret.write_text(target.password, encoding="utf-8")
    return {
        **os.environ,
        "PATH": f"{server.programs.bin_dir}:{os.environ['PATH']}",
        "PGPORT": str(target.port),
        "POSTGRES_USER": target.user,
        "POSTGRES_DB": target.database,
        "POSTGRES_PASSWORD_FILE": str(secret),
    }


def shell(script: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script as `kubectl exec -- sh -c` does."""
    return subprocess.run(
        ["sh", "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


async def limit(target: Target, value: int | None = None) -> int:
    """How many connections the database takes, -1: any number; set it first when a value is given."""
    async with connect(target) as conn:
        if value is not None:
            await conn.execute(f'ALTER DATABASE "{target.database}" CONNECTION LIMIT {value}')
        found: int = await conn.fetchval(
            "SELECT datconnlimit FROM pg_database WHERE datname = current_database()"
        )
        return found


def test_a_database_that_was_left_closed_is_opened(
    gatherer_db: Target, environ: dict[str, str]
) -> None:
    """And without TimescaleDB, or with the newest, nothing else is done to it."""
    run(limit(gatherer_db, 0))
    done = shell(SCRIPT, environ)
    assert done.returncode == 0, done.stderr
    assert read_extension(done.stdout).now == read_extension(done.stdout).was
    assert run(limit(gatherer_db)) == -1


def test_nobody_is_in_the_database_during_the_update_and_everybody_may_come_after_it(
    gatherer_db: Target, environ: dict[str, str]
) -> None:
    """Open sessions end; a service is turned away as if the database were away; also a failed update opens it again."""
    asked = SCRIPT.replace('"$(behind)" != 0', "1 = 1").replace(
        "ALTER EXTENSION timescaledb UPDATE;", "SELECT datconnlimit / 0 FROM pg_database;"
    )
    assert "datconnlimit" in asked

    async def broken_off() -> subprocess.CompletedProcess[str]:
        async with connect(gatherer_db) as before:
            done = shell(asked, environ)
            with pytest.raises(StoreUnavailable), map_store_errors():
                await before.fetchval("SELECT 1")
        return done

    done = run(broken_off())
    assert done.returncode != 0
    assert "division by zero" in done.stderr
    assert run(limit(gatherer_db)) == -1


def test_whoever_is_no_superuser_is_turned_away_while_it_is_closed(gatherer_db: Target) -> None:
    """A connector takes that as a database that is away, and spools."""

    async def knock() -> None:
        async with connect(gatherer_db) as conn:
            await conn.execute(f"ALTER ROLE kd_writer PASSWORD '{gatherer_db.password}'")
        await limit(gatherer_db, 0)
        with pytest.raises(StoreUnavailable):
            async with connect(replace(gatherer_db, user="kd_writer")):
                pass
        await limit(gatherer_db, -1)

    run(knock())


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("2.9.1", OWN, f"TimescaleDB 2.9.1 -> {OWN}"),
        (OWN, OWN, f"TimescaleDB {OWN}"),
        (
            "2.30.0",
            "2.30.0",
            f"TimescaleDB 2.30.0 stays: the server has {OWN} and knows no way to it;",
        ),
    ],
)
def test_an_extension_goes_forward_alone(
    stand_in: StandIn, tmp_path: Path, before: str, after: str, says: str
) -> None:
    """Of an image that was taken back it is said that the newer one is needed; nothing fails of it."""
    stand_in.add(f"2.30.0--{OWN}")
    run(stand_in.install(before))
    done = shell(SCRIPT, container(stand_in.target, stand_in.server, tmp_path))
    assert done.returncode == 0, done.stderr
    assert run(stand_in.installed()) == after
    assert read_extension(done.stdout).says.startswith(says)


@pytest.mark.skipif(not with_timescale(), reason="plain PostgreSQL has no extension")
def test_an_extension_whose_library_is_gone_is_updated(
    gatherer_db: Target, environ: dict[str, str]
) -> None:
    """The versions before and after are told, and the database works again for everybody."""

    async def forget_library() -> str:
        async with connect(gatherer_db) as conn:
            there: str = await conn.fetchval(
                "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
            )
            await conn.execute(
                "UPDATE _timescaledb_catalog.metadata SET value = $1 WHERE key = 'timescaledb_version'",
                GONE,
            )
            await conn.execute(
                "UPDATE pg_extension SET extversion = $1 WHERE extname = 'timescaledb'", GONE
            )
            return there

    async def rows() -> int:
        async with connect(gatherer_db) as conn:
            found: int = await conn.fetchval("SELECT count(*) FROM trades")
            return found

    there = run(forget_library())
    done = shell(SCRIPT, environ)
    assert done.returncode == 0, done.stderr
    assert read_extension(done.stdout) == (GONE, there, there)
    assert run(rows()) == 0
    assert run(limit(gatherer_db)) == -1
