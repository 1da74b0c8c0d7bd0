"""Level 2 of production: lags, completeness, and listening that is answered for one market without reading all."""

from pathlib import Path

from migrations.script import run_file, run_text

revision = "p0002"
down_revision = "p0001"

_HERE = Path(__file__).parent


def upgrade() -> None:
    """Only adds: code of level 1 goes on working."""
    run_text("SET LOCAL ROLE kd_owner")
    for part in ("tables", "views", "grants"):
        run_file(_HERE / f"p0002_{part}.sql")
    run_text("RESET ROLE")
