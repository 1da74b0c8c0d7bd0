"""The directory of a run: one run at a time has it, and a demo begins with an empty one."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path


class AlreadyRunning(RuntimeError):
    """Another local topology works in this directory; stop it, or choose another --state-dir."""


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a directory for ourselves.

    Raises:
        AlreadyRunning: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"{directory} is in use by another run") from None
        yield


def forget(directory: Path) -> None:
    """Remove what an earlier run left in the directory, but for its lock."""
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()
