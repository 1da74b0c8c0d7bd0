"""The files of an embedded server: a new cluster, its settings, its port, how its processes are born."""

import asyncio
import contextlib
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.local.ports import HOST
from services.local.postgres_errors import PostgresFailed, PostgresUnusable
from services.local.postgres_home import Programs, ServerUser
from services.local.processes import die_with_parent, on_linux

SUPERUSER = "postgres"

SETTINGS: dict[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "max_locks_per_transaction": "256",
    # New rows must be summarised soon: readers find them by BRIN.
    "autovacuum_naptime": "2s",
    "jit": "off",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}
"""Small, and safe: services refuse a server without fsync or synchronous_commit."""


def spawn_arguments(home: Path, user: ServerUser) -> dict[str, Any]:
    """Return how a process of the server is born: its user, its own session, and dying with us."""
    # PDEATHSIG is about the thread that forks: the event loop's, which lives as long as the process.
    return {
        "stdin": subprocess.DEVNULL,
        "cwd": home,
        "start_new_session": True,
        "preexec_fn": die_with_parent(signal.SIGINT) if on_linux() else None,
        **user.spawn_arguments(),
    }


async def init_cluster(
    home: Path, programs: Programs, user: ServerUser, *, sync: bool, timeout_s: float
) -> None:
    """Run initdb with a generated password; `data/` appears only when it is whole.

    Raises:
        PostgresFailed: initdb failed or took longer than timeout_s; the message ends with the log.
    """
    fresh = home / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    process = _start_initdb(home, fresh, programs, user, sync=sync)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while process.poll() is None:  # noqa: ASYNC110 - nothing tells us when a process ends
                    await asyncio.sleep(0.01)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise PostgresFailed(f"initdb in {home} failed:\n{log_tail(home)}")
    fresh.rename(home / "data")


def _start_initdb(
    home: Path, fresh: Path, programs: Programs, user: ServerUser, *, sync: bool
) -> subprocess.Popen[bytes]:
    password = home / "password"
    password.touch(mode=0o600)
    if user.uid is not None:
        shutil.chown(password, user.uid, user.gid)
    password.write_text(secrets.token_hex(24) + "\n")
    command = [
        str(programs.bin_dir / "initdb"), "-D", str(fresh), "-U", SUPERUSER, "-E", "UTF8", "--locale=C",
        "--auth=scram-sha-256", f"--pwfile={password}", *([] if sync else ["--no-sync"]),
    ]  # fmt: skip
    with (home / "postgres.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, **spawn_arguments(home, user))


def check_version(data: Path, programs: Programs) -> None:
    """Refuse programs of another major version than the cluster's.

    Raises:
        PostgresUnusable: they differ.
    """
    found = (data / "PG_VERSION").read_text().strip()
    if found != str(programs.version):
        raise PostgresUnusable(
            f"{data} was made by PostgreSQL {found}, the programs are version {programs.version};"
            " use those again or remove the directory"
        )


def write_settings(data: Path, settings: Mapping[str, str], user: ServerUser) -> None:
    """Write our settings to a file of their own, which postgresql.conf includes."""
    ours = data / "kalshi_data.conf"
    ours.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
    if user.uid is not None:
        shutil.chown(ours, user.uid, user.gid)
    include = f"include_if_exists = '{ours.name}'\n"
    main = data / "postgresql.conf"
    if include not in main.read_text():
        with main.open("a") as file:
            file.write(include)


def log_tail(home: Path) -> str:
    """Return the last lines of the server's log."""
    try:
        return "\n".join((home / "postgres.log").read_text(errors="replace").splitlines()[-15:])
    except OSError:
        return "(no log)"
