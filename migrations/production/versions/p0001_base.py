"""Level 1 of the production database: tables, views, roles and grants."""

from pathlib import Path

from migrations.script import ROLES, create_extension, run_file, run_text

revision = "p0001"
down_revision = None

_HERE = Path(__file__).parent


def upgrade() -> None:
    """Make everything as the role kd_owner, so that partitions made later have the same owner."""
    create_extension()
    run_file(ROLES)
    run_text("SET LOCAL ROLE kd_owner")
    for part in ("tables", "views", "grants"):
        run_file(_HERE / f"p0001_{part}.sql")
    run_text("RESET ROLE")
