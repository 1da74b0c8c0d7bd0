"""TimescaleDB of a database whose image is new: ALTER EXTENSION, while nobody else is in the database.

A new image brings a new library, but the database goes on with the old one until it is told; and a session that is in
the middle of something when it is told breaks. The migration's job updates it too, but has run when a held zone's database
gets its new image. So connections are refused (a connector then spools, as when the database
is away), those that are open are ended, and the update is the first word of a session, as TimescaleDB wants it. The
script opens the database again whatever happens, also when it finds one that a former run left closed.
"""

from typing import Final, NamedTuple

from services.rollout.errors import AnswerUnreadable

CONTAINER: Final = "postgres"
UPDATE_S_MAX: Final = 900.0

SCRIPT: Final = r"""
set -eu
PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"; export PGPASSWORD
run() { psql -XAtq -v ON_ERROR_STOP=1 -v name="$POSTGRES_DB" -h 127.0.0.1 -U "$POSTGRES_USER" -d "$1"; }
# Any other statement would load the library of the installed version, which a new image may not have.
ask() { PGOPTIONS='-c timescaledb.disable_load=on' run "$1"; }
reopen() { echo 'ALTER DATABASE :"name" CONNECTION LIMIT -1;' | ask postgres; }
version() {
  echo "SELECT installed_version FROM pg_available_extensions WHERE name = 'timescaledb';" | ask "$POSTGRES_DB"
}
# Only forward: an image that was taken back knows no way to its older version.
behind() {
  echo "SELECT count(*) FROM pg_available_extensions, LATERAL pg_extension_update_paths(name)
         WHERE name = 'timescaledb' AND source = installed_version AND target = default_version AND path IS NOT NULL
         AND string_to_array(split_part(target, '-', 1), '.')::int[]
           > string_to_array(split_part(source, '-', 1), '.')::int[];" | ask "$POSTGRES_DB"
}
there() {
  echo "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb';" | ask "$POSTGRES_DB"
}
trap reopen EXIT
was="$(version)"
if [ "$(behind)" != 0 ]; then
  echo 'ALTER DATABASE :"name" CONNECTION LIMIT 0;' | ask postgres
  echo "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = :'name' AND pid <> pg_backend_pid() AND backend_type = 'client backend';" |
    ask postgres >/dev/null
  echo 'ALTER EXTENSION timescaledb UPDATE;' | run "$POSTGRES_DB"
fi
echo "timescaledb ${was:-none} $(version) $(there)"
"""
"""Runs in the database's own container, which has psql and the superuser's password."""


class Extension(NamedTuple):
    """Versions before and after, and the server's own; all empty where the database has no TimescaleDB."""

    was: str
    now: str
    there: str = ""

    @property
    def says(self) -> str:
        """In words."""
        if not self.now:
            return "no TimescaleDB"
        if self.there not in ("", self.now):
            return f"TimescaleDB {self.now} stays: the server has {self.there} and knows no way to it; keep the newer database.image"
        return (
            f"TimescaleDB {self.now}"
            if self.was == self.now
            else f"TimescaleDB {self.was} -> {self.now}"
        )


def read_extension(answer: str) -> Extension:
    """Read the script's last line.

    Raises:
        AnswerUnreadable: it is another one.
    """
    words = answer.split()
    if words[:1] != ["timescaledb"] or len(words) not in (2, 3, 4):
        raise AnswerUnreadable(f"the database's container answered {answer.strip()[:200]!r}")
    return Extension("", "") if words[1] == "none" else Extension(*words[1:])
