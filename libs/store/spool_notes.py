"""Small files beside a spool's segments: how far it is committed, and what its owner must know to read it.

Both carry a checksum: what is torn counts as absent, which costs doubles or claims, never truth.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

FILE_MODE: Final = 0o600
_cursor = struct.Struct("<8sQ16sQ")
_MAGIC: Final = b"KDCURSOR"
_crc = struct.Struct("<I")


class Cursor(NamedTuple):
    """done: the last record committed. lane, confirmed: where its owner last wrote, and the last number confirmed there."""

    done: int
    lane: UUID
    confirmed: int


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Write it in place.

    Raises:
        OSError: it cannot be written.
    """
    data = _cursor.pack(_MAGIC, cursor.done, cursor.lane.bytes, cursor.confirmed)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.pwrite(fd, data + _crc.pack(zlib.crc32(data)), 0)
    finally:
        os.close(fd)


def read_cursor(path: Path) -> Cursor | None:
    """Read it; None when it is torn or absent."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    size = _cursor.size
    if len(data) != size + _crc.size or zlib.crc32(data[:size]) != _crc.unpack_from(data, size)[0]:
        return None
    magic, done, lane, confirmed = _cursor.unpack_from(data)
    return Cursor(done, UUID(bytes=lane), confirmed) if magic == _MAGIC else None


def write_state(path: Path, state: bytes, *, sync: bool) -> None:
    """Replace what was kept in one step.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        write_all(fd, _crc.pack(zlib.crc32(state)) + state)
        if sync:
            os.fdatasync(fd)
    finally:
        os.close(fd)
    new.replace(path)
    if sync:
        # Before the segments that it replaces go.
        sync_directory(path.parent)


def read_state(path: Path) -> bytes | None:
    """Return what was kept; None when it is torn or absent."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    size = _crc.size
    is_valid = len(data) >= size and _crc.unpack_from(data)[0] == zlib.crc32(data[size:])
    return data[size:] if is_valid else None


def write_all(fd: int, data: bytes) -> None:
    """Write all of it.

    Raises:
        OSError: as much as fitted is written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names of a directory's files.

    Raises:
        OSError: it does not take them.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
