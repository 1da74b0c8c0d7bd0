"""${message}"""

from pathlib import Path

from migrations.script import run_file

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Run the committed script; state level and oldest code level in it."""
    run_file(Path(__file__).with_suffix(".sql"))
