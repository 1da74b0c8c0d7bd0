"""`kalshi-data migrate` as a command: arguments, configuration, waiting, exit statuses."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.runtime.settings import ConfigInvalid
from libs.store.pool import Target, connect
from services.local.postgres import EmbeddedPostgres
from services.migrate.command import main, parse_dsn, parse_target
from tests.support.postgres import scratch_directory, server_programs

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def own_server() -> AsyncIterator[EmbeddedPostgres]:
    """A started server without any database of ours."""
    server = EmbeddedPostgres(
        scratch_directory() / "own", bin_dir=server_programs(), sync_init=False
    )
    try:
        await server.start()
        yield server
    finally:
        await server.kill()
        server.remove()
        server.home.parent.rmdir()


async def _command(*arguments: str) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.migrate", *arguments, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        output, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, output.decode()


async def _zone(target: Target) -> str:
    async with connect(target) as conn:
        zone: str = await conn.fetchval("SELECT zone FROM gatherer_identity")
        return zone


async def test_several_targets_at_once(own_server: EmbeddedPostgres) -> None:
    """One call makes gatherers and production, each with its zone, and says so for each."""
    password = own_server.home / "password"
    for name in ("zone_a", "zone_b", "production"):
        await own_server.create_database(name)
    status, output = await _command(
        "--target", f"gatherer:a={own_server.port}/zone_a:{password}",
        "--target", f"gatherer:b={own_server.port}/zone_b:{password}",
        "--target", f"production={own_server.port}/production:{password}",
    )  # fmt: skip
    assert status == 0, output
    assert output.count("database_migrated") == 3
    assert await _zone(own_server.target("zone_a")) == "a"
    assert await _zone(own_server.target("zone_b")) == "b"


async def test_configured_database_is_waited_for(
    own_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """The database of gatherer.yaml is migrated with the file's zone, once it exists; until then a message says so."""
    config = tmp_path / "gatherer.yaml"
    config.write_text(
        "zone: z\nregistry: {}\nlog: {format: text}\n"
        f"store: {{port: {own_server.port}, database: later, user: postgres,"
        f" password_file: {own_server.home / 'password'}}}\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.migrate", "--database", "gatherer", "--config", str(config),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    async with asyncio.timeout(60):
        assert b"database_away" in await child.stdout.readline()
        await own_server.create_database("later")
        rest = await child.stdout.read()
        assert await child.wait() == 0
    assert b"database_back" in rest and b"database_migrated" in rest
    assert await _zone(own_server.target("later")) == "z"


async def test_a_refused_password_ends_at_once(own_server: EmbeddedPostgres) -> None:
    """A wrong password is one clear line and status 1."""
    dsn = f"postgresql://postgres:wrong@127.0.0.1:{own_server.port}/postgres"
    status, output = await _command("--database", "production", "--dsn", dsn)
    assert status == 1
    assert "password authentication failed" in output and "Traceback" not in output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--database", "gatherer", "--dsn", "mysql://x@y/z"],
        ["--target", "gatherer:a=nonsense"],
        ["--target", "gatherer:a=5432/kalshi:/nowhere/password"],
    ],
)
def test_unusable_arguments_are_status_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is said by the argument's name, without a traceback."""
    monkeypatch.delenv("KALSHI_DATA_CONFIG", raising=False)
    assert main(arguments) == 2
    assert "--" in (error := capsys.readouterr().err) or "password file" in error


def test_a_target_names_everything(tmp_path: Path) -> None:
    """Host and user may be given; this machine and postgres are the defaults."""
    (tmp_path / "p").write_text("secret\n")
    short = parse_target(f"production=6000/kalshi:{tmp_path / 'p'}")
    assert (short.kind, short.zone, short.target.address) == (
        "production",
        None,
        "postgres@127.0.0.1:6000/kalshi",
    )
    long = parse_target(f"gatherer:us-east-1a=kd_owner@db.zone-a:5432/kalshi:{tmp_path / 'p'}")
    assert (long.zone, long.target.address) == ("us-east-1a", "kd_owner@db.zone-a:5432/kalshi")
    assert long.target.password == "secret"


def test_a_dsn_takes_its_password_from_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the address, in PGPASSWORD, or in a file; nowhere is a fault."""
    (tmp_path / "p").write_text("from file\n")
    monkeypatch.setenv("PGPASSWORD", "from environment")
    assert parse_dsn("postgresql://u:a%40b@h/d").password == "a@b"
    assert parse_dsn("postgresql://u@h:1/d").password == "from environment"
    assert parse_dsn("postgresql://u@h:1/d", tmp_path / "p").password == "from file"
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(ConfigInvalid, match="no password"):
        parse_dsn("postgresql://u@h:1/d")
