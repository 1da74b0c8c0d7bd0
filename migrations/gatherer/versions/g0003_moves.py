"""Level 3 of the gatherer database: markets move between slots make-before-break."""

from pathlib import Path

from migrations.script import run_file, run_text

revision = "g0003"
down_revision = "g0002"

_HERE = Path(__file__).parent


def upgrade() -> None:
    """Only adds: code of level 1 goes on working."""
    run_text("SET LOCAL ROLE kd_owner")
    run_file(_HERE / "g0003_tables.sql")
    run_text("RESET ROLE")
