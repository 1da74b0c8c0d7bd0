"""The development database's entry point, run with this machine's PostgreSQL: what a volume looks like afterwards."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from services.local.postgres_home import (
    Programs,
    ServerUser,
    find_programs,
    reachable_programs,
    server_user,
)
from tests.deploy.locks import ROOT
from tests.support.postgres import server_programs

pytestmark = pytest.mark.postgres


class Container(NamedTuple):
    """A folder that stands for the container's: the volume in it, and who runs there."""

    folder: Path
    user: ServerUser
    programs: Programs

    @property
    def data(self) -> Path:
        """PGDATA, below the mount."""
        return self.folder / "volume" / "pgdata"

    def start(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the entry point to its end; `-V` in place of a server's arguments ends at once."""
        environment = {
            "PATH": f"{self.programs.bin_dir}:{os.environ['PATH']}",
            "PGDATA": str(self.data),
            "TMPDIR": str(self.folder / "tmp"),
            "POSTGRES_USER": "boss",
            "POSTGRES_DB": "kalshi",
            **variables,
        }
        spawn = self.user.spawn_arguments()
        done: subprocess.CompletedProcess[str] = subprocess.run(
            ["bash", self.folder / "entrypoint", *arguments],
            env=environment, cwd="/", capture_output=True, text=True, check=False,
            **spawn,  # type: ignore[call-overload]
        )  # fmt: skip
        return done

    def give(self, *paths: Path) -> None:
        """Make these the user's own."""
        if self.user.uid is not None and self.user.gid is not None:
            for path in paths:
                os.chown(path, self.user.uid, self.user.gid)


@pytest.fixture
def container() -> Iterator[Container]:
    """An empty volume, with the mode that fsGroup gives it, and a password in a file."""
    user = server_user()
    programs = reachable_programs(find_programs(server_programs()), user)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        folder = Path(made)
        for name in ("volume", "tmp"):
            (folder / name).mkdir(mode=0o770)
        (folder / "password").write_text("a secret", encoding="utf-8")
        shutil.copy(ROOT / "images" / "postgres" / "entrypoint", folder)
        made_here = Container(folder, user, programs)
        made_here.give(folder, *folder.iterdir())
        yield made_here


def test_the_first_start_makes_a_database_that_asks_for_passwords(container: Container) -> None:
    """Remains of an interrupted start are thrown away; whoever comes over the network needs scram."""
    remains = container.data.with_name("pgdata.new")
    remains.mkdir()
    (remains / "PG_VERSION").write_text("half", encoding="utf-8")
    container.give(remains, remains / "PG_VERSION")
    done = container.start("-V", POSTGRES_PASSWORD_FILE=str(container.folder / "password"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("postgres (PostgreSQL)")
    assert not remains.exists()
    rules = [
        line.split()
        for line in (container.data / "pg_hba.conf").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert {rule[-1] for rule in rules if rule[0] == "host"} == {"scram-sha-256"}
    assert ["host", "all", "all", "all", "scram-sha-256"] in rules
    assert "listen_addresses = '*'" in (container.data / "postgresql.conf").read_text()
    assert list((container.folder / "tmp").iterdir()) == []
    # Mounted again: fsGroup has opened the folder, and the database that is there stays.
    container.data.chmod(0o770)
    again = container.start("postgres", "-V")
    assert again.returncode == 0, again.stderr
    assert "making the database" not in again.stderr
    assert container.data.stat().st_mode & 0o777 == 0o700


def test_without_a_password_nothing_is_made(container: Container) -> None:
    """A database that anybody may enter is no default; the next start finds an empty volume."""
    done = container.start("postgres")
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD_FILE" in done.stderr
    assert not container.data.exists()


def test_another_program_takes_the_servers_place(container: Container) -> None:
    """`docker run IMAGE psql ...` runs psql and makes nothing."""
    done = container.start("id", "-u")
    assert done.stdout.strip() == str(container.user.uid or os.getuid())
    assert not container.data.exists()
