"""Level 4 of the gatherer database: tickers go over lanes of their own."""

from pathlib import Path

from migrations.script import run_file, run_text

revision = "g0004"
down_revision = "g0003"

_HERE = Path(__file__).parent


def upgrade() -> None:
    """Only adds: whoever writes goes on. Who reads all lanes must know the new family, so older code is told to wait."""
    run_text("SET LOCAL ROLE kd_owner")
    run_file(_HERE / "g0004_lanes.sql")
    run_text("RESET ROLE")
