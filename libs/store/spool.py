"""The disk spool of one process: where sealed batches wait when the database is slow or away.

    <directory>/lock                                   one process at a time
    <directory>/<family>/<opened at>-<instance>/       a run: one process, one family, from empty to empty

Bounded in bytes by family, so that a flood of deltas leaves room for the gaps it causes, and by what must stay free on
the disk. A new process finds the runs of the one before it; its own are new ones. Blocking, for a thread.
"""

import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from libs.marketdata.tables import Family
from libs.store.errors import StoreError
from libs.store.spool_format import Record, RunHeader, SpoolRefused
from libs.store.spool_notes import FILE_MODE, Cursor, sync_directory
from libs.store.spool_run import DIRECTORY_MODE, SpoolRun

SHARES: Final[Mapping[Family, float]] = {
    Family.DELTAS: 0.6, Family.TRADES: 0.15, Family.TICKERS: 0.1, Family.REST: 0.15,
}  # fmt: skip
"""How the bytes are divided; what a family does not use is not lent, so that none starves another."""
SEGMENT_BYTES_MAX: Final = 32 << 20
SEGMENTS_MIN: Final = 8
"""A family's share holds at least so many segments, because room is given back by the segment."""
HEADER_ROOM: Final = 512
"""Bytes that a record may cost besides its own: it may begin a segment."""
REFUSED: Final = "refused-"

FsyncPolicy = Literal["always", "interval", "never"]


class SpoolFull(StoreError):
    """The spool has no room; try again when some was given back."""

    retryable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """bytes_max: of all families together. free_bytes_min: what is left free on the disk. fsync: see the settings."""

    bytes_max: int
    free_bytes_min: int
    fsync: FsyncPolicy


class FamilySpool:
    """A family's part: the runs that were found, and at most one that is written.

    Attributes:
        bytes_max: bytes that its runs may take together. inherited: what earlier processes left, oldest first.
        run: the one that is written, None while nothing is spooled.
    """

    def __init__(self, directory: Path, family: Family, limits: SpoolLimits) -> None:
        self.family = family
        self.bytes_max = int(limits.bytes_max * SHARES[family])
        self.inherited: list[SpoolRun] = []
        self.run: SpoolRun | None = None
        self._directory = directory
        self._limits = limits
        self._segment_bytes = max(1, min(SEGMENT_BYTES_MAX, self.bytes_max // SEGMENTS_MIN))

    @property
    def size_bytes(self) -> int:
        """Bytes that its runs take."""
        runs, own = [*self.inherited], self.run
        return sum(run.size_bytes for run in (runs if own is None else [*runs, own]))

    @property
    def syncs(self) -> bool:
        """True when what must survive a power cut is waited for."""
        return self._limits.fsync != "never"

    def append(
        self,
        header: RunHeader,
        records: Sequence[Record],
        state: Callable[[], bytes],
        cursor: Cursor,
    ) -> None:
        """Append records to the run; `run.last` says how far it came.

        Args:
            header, state, cursor: what a new run begins with, if this is one.

        Raises:
            SpoolFull: no room. OSError: the disk did not take it.
        """
        if self.run is not None and not self.run.last:
            # Its beginning is another one by now.
            self.drop(self.run)
        if self.run is None:
            self._admit(0)
            name = f"{header.opened_at:020d}-{header.instance}"
            self.run = SpoolRun.create(
                self._directory / name, header, state(), cursor, sync=self.syncs
            )
        self.run.append(
            records,
            segment_bytes=self._segment_bytes,
            admit=self._admit,
            sync=self._limits.fsync == "always",
        )

    def drop(self, run: SpoolRun) -> None:
        """Delete a run of which nothing is needed any more.

        Raises:
            OSError: it cannot be deleted.
        """
        if run is self.run:
            self.run = None
        elif run in self.inherited:
            self.inherited.remove(run)
        run.remove()

    def refuse(self, run: SpoolRun) -> Path:
        """Put a run aside for a person to look at; returns where it is now.

        Raises:
            OSError: it cannot be renamed.
        """
        aside = run.path.with_name(REFUSED + run.path.name)
        self.inherited.remove(run)
        return run.path.rename(aside)

    def find(self) -> list[str]:
        """Find what earlier processes left; returns a sentence for every run that was put aside.

        Raises:
            OSError: the directory cannot be made or read.
        """
        self._directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if self.syncs:
            sync_directory(self._directory.parent)
        refused = []
        for path in sorted(self._directory.iterdir()):
            if not path.is_dir() or path.name.startswith(REFUSED):
                continue
            try:
                run = SpoolRun.find(path)
            except SpoolRefused as error:
                refused.append(f"{path.rename(path.with_name(REFUSED + path.name))}: {error}")
                continue
            if run is None:
                SpoolRun(path, RunHeader("", "", "", "", self.family.value, "", 0)).remove()
            else:
                self.inherited.append(run)
        return refused

    def _admit(self, size: int) -> None:
        size += HEADER_ROOM
        if self.size_bytes + size > self.bytes_max:
            raise SpoolFull(f"{self.family} has its {self.bytes_max} bytes")
        disk = os.statvfs(self._directory)
        if disk.f_bavail * disk.f_frsize - size < self._limits.free_bytes_min:
            raise SpoolFull(f"less than {self._limits.free_bytes_min} bytes are free on the disk")


class Spool:
    """The spool of a process: one FamilySpool for each family, and the lock that keeps others out."""

    def __init__(self, directory: Path, limits: SpoolLimits) -> None:
        self.directory = directory
        self.limits = limits
        self.families = {
            family: FamilySpool(directory / family.value, family, limits) for family in Family
        }
        self._lock: int | None = None

    def open(self) -> list[str]:
        """Make the directories, take the lock, find what is there; returns what was put aside and why.

        Raises:
            OSError: the directory cannot be used; BlockingIOError: another process uses it.
        """
        self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        if self.limits.fsync != "never":
            sync_directory(self.directory.parent)
        fd = os.open(self.directory / "lock", flags, FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self._lock = fd
        try:
            return [said for spool in self.families.values() for said in spool.find()]
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Give files and lock back; what is in the spool stays."""
        for spool in self.families.values():
            if spool.run is not None:
                spool.run.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
