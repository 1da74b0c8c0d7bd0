"""An embedded PostgreSQL server: made, started, stopped, or killed as by a power cut; no set-up by the user.

One object owns one server: a home directory that holds `data/`, the superuser's password and the log. It listens on
127.0.0.1 only, survives the terminal's Ctrl-C and dies with its parent process. It always runs with fsync and
synchronous_commit on: what a gatherer has acknowledged must survive `kill`.
"""

import asyncio
import contextlib
import dataclasses
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from libs.store.errors import StoreError
from libs.store.pool import Target, connect, map_store_errors
from services.local import postgres_process as family
from services.local.ports import HOST, free_port
from services.local.postgres_cluster import (
    SETTINGS,
    SUPERUSER,
    check_version,
    init_cluster,
    log_tail,
    spawn_arguments,
    write_settings,
)
from services.local.postgres_errors import PostgresFailed, PostgresUnusable
from services.local.postgres_home import (
    Programs,
    ServerUser,
    find_programs,
    reachable_home,
    reachable_programs,
    server_user,
)

StopMode = Literal["fast", "immediate"]
_SIGNALS: dict[str, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class EmbeddedPostgres:
    """One server on this machine.

    Args:
        home: its directory, created when missing; moved to /var/tmp when the server's user cannot reach it.
        port: 0 takes a free one and keeps it for as long as this object lives.
        bin_dir: programs to use; by default the highest version of this machine, else the wheel's.
        settings: added to or replacing SETTINGS.
        sync_init: False skips the flush after initdb; for tests only.

    Raises:
        PostgresUnusable: no programs, no unprivileged user for root, or no usable directory.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int = 0,
        bin_dir: Path | None = None,
        settings: Mapping[str, str] | None = None,
        sync_init: bool = True,
    ) -> None:
        self.user: ServerUser = server_user()
        self.programs: Programs = reachable_programs(find_programs(bin_dir), self.user)
        self.home: Path = reachable_home(home, self.user)
        self.data: Path = self.home / "data"
        self.log: Path = self.home / "postgres.log"
        self.port: int = port
        self._settings = {**SETTINGS, **(settings or {})}
        self._sync_init = sync_init
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @property
    def alive(self) -> bool:
        """True while the postmaster runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def password(self) -> str:
        """The superuser's password, from the 0600 file beside the data directory."""
        return (self.home / "password").read_text().strip()

    def target(self, database: str = "postgres", user: str = SUPERUSER) -> Target:
        """Return the address of a database of this server; every role has the same generated password."""
        return Target(HOST, self.port, database, user, self.password)

    async def start(self, timeout_s: float = 60.0) -> None:
        """Make the cluster when there is none, start the server and wait until it answers.

        Raises:
            PostgresUnusable: another live server works in this directory.
            PostgresFailed: it did not answer in time; the message ends with its log.
        """
        if self.alive:
            return
        if not (self.data / "PG_VERSION").exists():
            await init_cluster(
                self.home, self.programs, self.user, sync=self._sync_init, timeout_s=timeout_s
            )
        check_version(self.data, self.programs)
        await self._clear_leftovers(min(20.0, timeout_s))
        keep_port = self.port != 0
        for _ in range(5):
            self.port = self.port or free_port()
            self._spawn()
            if await self._answers(timeout_s):
                return
            taken = "Address already in use" in self._log_tail()
            await self._abandon()
            if keep_port or not taken:
                break
            self.port = 0
        raise PostgresFailed(f"PostgreSQL in {self.home} did not start:\n{self._log_tail()}")

    async def stop(self, mode: StopMode = "fast", timeout_s: float = 30.0) -> None:
        """Stop the server (fast: checkpoint; immediate: like a crash, without waiting for clients' work).

        Raises:
            PostgresFailed: it had to be killed.
        """
        process = self._process
        if process is None or not self.alive:
            return
        process.send_signal(_SIGNALS[mode])
        if await self._ended(timeout_s):
            return
        await self.kill()
        raise PostgresFailed(
            f"PostgreSQL in {self.home} did not stop within {timeout_s} s and was killed:\n{self._log_tail()}"
        )

    async def kill(self) -> None:
        """Kill -9 the postmaster and all its children, a power cut; return when all of them are gone."""
        process = self._process
        if process is None or not self.alive:
            return
        pids = family.kill_server(process.pid)
        await self._ended(10.0)
        if left := await family.wait_gone(pids, 10.0):
            raise PostgresFailed(f"processes {left} of PostgreSQL in {self.home} survived kill -9")

    async def create_database(self, name: str) -> Target:
        """Create a database unless it is there; return the superuser's address of it."""
        async with connect(self.target()) as conn:
            with map_store_errors():
                known = await conn.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name)
                if known is None:
                    quoted: str = await conn.fetchval("SELECT quote_ident($1)", name)
                    await conn.execute(f"CREATE DATABASE {quoted}")
        return self.target(name)

    async def share_password(self) -> None:
        """Give every kd_* role the superuser's password; after the migration, which makes the roles."""
        async with connect(self.target()) as conn:
            with map_store_errors():
                statements = await conn.fetch(
                    "SELECT format('ALTER ROLE %I PASSWORD %L', rolname, $1::text) AS sql FROM pg_roles"
                    " WHERE rolname LIKE 'kd\\_%'",
                    self.password,
                )
                for row in statements:
                    await conn.execute(row["sql"])

    def remove(self) -> None:
        """Delete the stopped server's directory with everything in it."""
        if self.alive:
            raise PostgresUnusable(f"PostgreSQL in {self.home} still runs; stop it first")
        shutil.rmtree(self.home, ignore_errors=True)

    async def _clear_leftovers(self, timeout_s: float) -> None:
        """Wait for what an earlier life left behind, so that the new server is not refused."""
        pid = family.postmaster_pid(self.data)
        running = pid is not None and pid in family.running_in(self.data)
        if pid is not None and running and await family.wait_gone([pid], timeout_s):
            raise PostgresUnusable(
                f"another PostgreSQL (process {pid}) works in {self.data}; stop that one first"
            )
        orphans = family.running_in(self.data)
        if orphans:
            # Without a postmaster they must end by themselves; those that do not would keep the shared memory.
            left = await family.wait_gone(orphans, 5.0)
            family.send(left, signal.SIGKILL)
            await family.wait_gone(left, 5.0)
        # The file's process is not ours, but its number may have been given to somebody else since.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _spawn(self) -> None:
        write_settings(self.data, {**self._settings, "port": str(self.port)}, self.user)
        command = [str(self.programs.bin_dir / "postgres"), "-D", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, **spawn_arguments(self.home, self.user)
            )

    async def _answers(self, timeout_s: float) -> bool:
        """Wait until a query is answered; False when the server ended or the time is over."""
        # Short, because somebody else may listen on our port and say nothing.
        target = dataclasses.replace(self.target(), connect_timeout_s=2.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.alive:
                    with contextlib.suppress(StoreError):
                        async with connect(target) as conn:
                            with map_store_errors():
                                await conn.execute("SELECT 1")
                        return True
                    await asyncio.sleep(0.02)
        return False

    async def _ended(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.alive:  # noqa: ASYNC110 - nothing tells us when a process ends
                    await asyncio.sleep(0.01)
        return not self.alive

    async def _abandon(self) -> None:
        await self.kill()
        self._process = None

    def _log_tail(self) -> str:
        return log_tail(self.home)
