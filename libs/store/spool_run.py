"""One run of a spool: the segment files that one process wrote for one family, from empty to empty.

A directory with segments (`<number of the first record>.seg`), a cursor (which batches are committed, on which lane) and
the state that its owner saved. Appended by one writer and read once, front to back. Blocking, for a thread; not for two
threads at once. What a crash tore off is found by its checksum when it is read: the tail is cut, and said.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from libs.store.spool_format import (
    RECORD_MAGIC,
    SEGMENT_HEADER_BYTES_MAX,
    Record,
    RunHeader,
    SpoolRefused,
    pack_header,
    pack_record,
    read_header,
)
from libs.store.spool_notes import (
    FILE_MODE,
    Cursor,
    read_cursor,
    read_state,
    sync_directory,
    write_all,
    write_cursor,
    write_state,
)
from libs.store.spool_reader import Lost, Segment, SegmentReader

DIRECTORY_MODE: Final = 0o700
SUFFIX: Final = ".seg"
CURSOR: Final = "cursor"
STATE: Final = "state"


class SpoolRun:
    """See the module. Args of the constructor: its directory and what its segments say of it.

    Attributes:
        last: number of the last record that was appended, 0 for none. cursor: as last noted.
    """

    def __init__(self, path: Path, header: RunHeader) -> None:
        self.path = path
        self.header = header
        self.last = 0
        self.cursor: Cursor | None = None
        self._segments: deque[Segment] = deque()
        self._fd: int | None = None
        self._is_dirty = False
        self._syncs = False
        self._reader = SegmentReader(self._segments, lambda: self.last or None, self._leave_segment)

    @classmethod
    def create(
        cls, path: Path, header: RunHeader, state: bytes, cursor: Cursor, *, sync: bool
    ) -> "SpoolRun":
        """Make the directory of a new run, with the state and the cursor of its beginning.

        Raises:
            OSError: it cannot be written.
        """
        path.mkdir(mode=DIRECTORY_MODE, parents=True)
        run = cls(path, header)
        run._syncs = sync
        if sync:
            sync_directory(path.parent)
        run.save_state(state, sync=sync)
        run.release(cursor, None, delete=False, sync=sync)
        return run

    @classmethod
    def find(cls, path: Path) -> "SpoolRun | None":
        """Open what an earlier process left; None when no segment holds anything.

        Raises:
            SpoolRefused: another version's, or nobody's. OSError: it cannot be read.
        """
        header, segments, has_records = None, list[Segment](), False
        files = [file for file in sorted(path.glob(f"*{SUFFIX}")) if file.stem.isdigit()]
        for file in files:
            with file.open("rb") as opened:
                data = opened.read(SEGMENT_HEADER_BYTES_MAX)
            if not data:
                continue
            found = read_header(data)
            header = header or (found[0] if found is not None else None)
            has_records = has_records or RECORD_MAGIC in data
            segments.append(Segment(file, int(file.stem), file.stat().st_size))
        if header is None:
            if has_records:
                raise SpoolRefused("no segment says whose it is, and there are records")
            return None
        run = cls(path, header)
        run._segments.extend(segments)
        run._reader.expected = int(files[0].stem)
        run.cursor = read_cursor(path / CURSOR)
        return run

    @property
    def size_bytes(self) -> int:
        """Bytes of its segments; for any thread."""
        # Copied in one step, because the thread of the disk adds and removes segments meanwhile.
        return sum(segment.size for segment in tuple(self._segments))

    # --- appending ---

    def append(
        self,
        records: Sequence[Record],
        *,
        segment_bytes: int,
        admit: Callable[[int], None],
        sync: bool,
    ) -> None:
        """Append records; `last` says how far it came, also when it fails.

        Args:
            segment_bytes: size from which on a new segment is begun.
            admit: is asked before every record with its bytes; raises to refuse.
            sync: wait until the disk has them.

        Raises:
            OSError: the disk did not take it; what was written of that record is cut off again.
        """
        for record in records:
            data = pack_record(record)
            admit(len(data))
            try:
                self._write(data, record.number, segment_bytes)
            except OSError:
                self._leave_segment()
                raise
            self.last = record.number
        if sync:
            self.sync()

    def _write(self, data: bytes, number: int, segment_bytes: int) -> None:
        if self._fd is None or self._segments[-1].size >= segment_bytes:
            if self._syncs:
                self.sync()
            self._leave_segment()
            self._begin_segment(number)
        assert self._fd is not None
        write_all(self._fd, data)
        self._segments[-1].size += len(data)
        self._is_dirty = True

    def _begin_segment(self, first: int) -> None:
        path = self.path / f"{first:020d}{SUFFIX}"
        if self._segments and self._segments[-1].path == path:
            self._go_on_with(self._segments[-1])
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, FILE_MODE)
        header = pack_header(replace(self.header, first=first))
        segment = Segment(path, first, 0)
        self._segments.append(segment)
        self._reader.expected = self._reader.expected or first
        write_all(self._fd, header)
        segment.size = len(header)
        if self._syncs:
            sync_directory(self.path)

    def _go_on_with(self, segment: Segment) -> None:
        """Open a segment again whose first record was not taken: a second one of its name would be deleted with it."""
        self._fd = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._fd, segment.size)

    def _leave_segment(self) -> None:
        """Close the segment that is written; what was not written whole is cut off, and an empty one removed."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        segment = self._segments[-1]
        try:
            os.ftruncate(fd, segment.size)
            if self._is_dirty and self._syncs:
                os.fdatasync(fd)
        except OSError:
            # The reader stops at the size that is known; another process finds the tear by its checksum. Whoever relies on
            # what was written has called sync(), which raises.
            pass
        finally:
            os.close(fd)
        self._is_dirty = False
        if not segment.size:
            segment.path.unlink(missing_ok=True)
            self._segments.pop()

    def sync(self) -> None:
        """Wait until the disk has everything appended.

        Raises:
            OSError: it does not take it; what was appended since the last time may be gone after a power cut.
        """
        if self._fd is not None and self._is_dirty:
            self._is_dirty = False
            os.fdatasync(self._fd)

    # --- reading ---

    def read(self, size_bytes: int) -> list[Record | Lost]:
        """Return the next records, about so many bytes of them; nothing when everything appended was read.

        Raises:
            OSError: the disk does not give them; call again, or skip().
        """
        return self._reader.read(size_bytes)

    def skip(self) -> list[Lost]:
        """Give up the segment that is being read; nothing may be lost by it, when it was read to its end."""
        return self._reader.skip()

    # --- what is done ---

    def has_done(self, done: int) -> bool:
        """True when the first segment holds only records up to this one, all of them read."""
        return (
            len(self._segments) > 1
            and self._segments[1].first <= done + 1
            and self._reader.segment is not self._segments[0]
        )

    def release(
        self, cursor: Cursor, state: Callable[[], bytes] | None, *, delete: bool, sync: bool
    ) -> None:
        """Note what is committed, and delete the segments that hold nothing else.

        Args:
            state: gives what a reader of the rest must know, as of the cursor and written before it; None: nothing new.
            delete: whether segments may go; not before the state was looked at.

        Raises:
            OSError: the disk does not take it; nothing is lost, later doubles are legal.
        """
        if state is not None:
            self.save_state(state(), sync=sync)
        if cursor != self.cursor:
            write_cursor(self.path / CURSOR, cursor)
            self.cursor = cursor
        while delete and self.has_done(cursor.done):
            self._segments[0].path.unlink(missing_ok=True)
            self._segments.popleft()

    def save_state(self, state: bytes, *, sync: bool) -> None:
        """Keep what its owner must know to read it.

        Raises:
            OSError: it cannot be written.
        """
        write_state(self.path / STATE, state, sync=sync)

    def load_state(self) -> bytes | None:
        """Return what was kept; None when it is torn or absent."""
        return read_state(self.path / STATE)

    def remove(self) -> None:
        """Delete everything: nothing in it is needed any more.

        Raises:
            OSError: a file cannot be deleted.
        """
        self._leave_segment()
        # The cursor goes last: what a crash leaves behind is known to be committed.
        for name in (*sorted(self.path.glob(f"*{SUFFIX}")), self.path / STATE, self.path / CURSOR):
            name.unlink(missing_ok=True)
        for name in self.path.iterdir():
            name.unlink()
        self.path.rmdir()
        self._segments.clear()

    def close(self) -> None:
        """Give the open file back; everything stays where it is."""
        self._leave_segment()
