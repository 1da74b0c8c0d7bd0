"""The configuration that a run on this machine left: what commands ask when nobody names a file."""

from pathlib import Path
from typing import Final

FILES: Final = (
    Path("var/local/config/production.yaml"),
    Path("var/demo/config/production.yaml"),
)
"""Where `local`, and its demo, leave the file that names every database."""


def last_run_config() -> Path | None:
    """Return the file of the run that began last; None when there was none in this folder."""
    found = [path for path in FILES if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
