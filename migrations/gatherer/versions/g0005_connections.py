"""Level 5 of the gatherer database: connections beyond one per slot are counted where all shards see them."""

from pathlib import Path

from migrations.script import run_file, run_text

revision = "g0005"
down_revision = "g0004"

_HERE = Path(__file__).parent


def upgrade() -> None:
    """Only adds: code of level 4 goes on working, and its extra connections are not counted."""
    run_text("SET LOCAL ROLE kd_owner")
    run_file(_HERE / "g0005_tables.sql")
    run_text("RESET ROLE")
