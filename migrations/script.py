"""How a revision runs: committed SQL text, sent as it is, as the role that owns everything.

A revision's meaning must not change when the code does, so its DDL is a .sql file beside it. Only what depends on the
server (hypertables or native partitions) is filled in, by the one place that decides: libs/store/partitions.py.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text
from sqlalchemy.util import await_only

from libs.store.partitions import render_partitioned, timescale_statements

ROLES = Path(__file__).with_name("roles.sql")


def has_timescale() -> bool:
    """True when this database has the extension; asked inside a revision."""
    found = op.get_bind().execute(
        text("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'")
    )
    return bool(found.scalar_one())


def create_extension() -> None:
    """Make the TimescaleDB extension where the server offers it to us."""
    for statement in timescale_statements():
        run_text(statement)


def run_file(path: Path) -> None:
    """Run a committed script with its partition marks filled in."""
    run_text(render_partitioned(path.read_text(encoding="utf-8"), timescale=has_timescale()))


def run_text(script: str) -> None:
    """Send a script of several statements in one round trip, inside the migration's transaction."""
    connection = op.get_bind()
    connection.execute(
        text("SELECT 1")
    )  # the driver's adapter begins its transaction with its first statement
    driver = connection.connection.driver_connection
    assert driver is not None
    await_only(driver.execute(script))
