"""Level 4 of production: listening outlives the ranges that retention drops."""

from pathlib import Path

from migrations.script import run_file, run_text

revision = "p0004"
down_revision = "p0003"


def upgrade() -> None:
    """Only replaces a view by one that says the same and more: code of level 3 goes on working."""
    run_text("SET LOCAL ROLE kd_owner")
    run_file(Path(__file__).parent / "p0004_listening.sql")
    run_text("RESET ROLE")
