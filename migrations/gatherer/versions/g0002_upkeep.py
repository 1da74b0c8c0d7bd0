"""Level 2 of the gatherer database: what the poller remembers of its repairs and checks, and old chunks as columns."""

from pathlib import Path

from migrations.script import has_timescale, run_file, run_text

revision = "g0002"
down_revision = "g0001"

_HERE = Path(__file__).parent


def upgrade() -> None:
    """Only adds: code of level 1 goes on working."""
    run_text("SET LOCAL ROLE kd_owner")
    run_file(_HERE / "g0002_tables.sql")
    if has_timescale():
        run_file(_HERE / "g0002_columnstore.sql")
    run_text("RESET ROLE")
