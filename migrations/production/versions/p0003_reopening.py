"""Level 3 of production: ranges that retention has dropped are opened again for rows that come late."""

from pathlib import Path

from migrations.script import run_file, run_text

revision = "p0003"
down_revision = "p0002"

_HERE = Path(__file__).parent


def upgrade() -> None:
    """Only adds: code of level 1 goes on working, and refuses what it refused before."""
    run_text("SET LOCAL ROLE kd_owner")
    run_file(_HERE / "p0003_tables.sql")
    run_text("RESET ROLE")
