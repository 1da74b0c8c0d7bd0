"""The oldest record of a run that is not committed, looked up without touching the run: for whoever only wants to know.

Whole heads are stepped over; nothing is cut, and the place where its reader stands stays what it is. Blocking.
"""

import struct
from pathlib import Path
from typing import NamedTuple

from libs.store.spool_format import (
    HEAD_BYTES,
    SEGMENT_HEADER_BYTES_MAX,
    Head,
    Record,
    is_whole,
    read_body,
    read_head,
    read_header,
)
from libs.store.spool_run import SUFFIX


class Oldest(NamedTuple):
    """first_at: when its first row came, microseconds. record: None when its body is torn."""

    first_at: int
    record: Record | None


def find_oldest(directory: Path, done: int) -> Oldest | None:
    """Return the first record behind number `done`; None when the run holds none.

    Raises:
        OSError: the disk does not give it, or it was deleted meanwhile.
        SpoolRefused: another version's.
    """
    for path in sorted(path for path in directory.iterdir() if path.suffix == SUFFIX):
        with path.open("rb") as file:
            found = read_header(file.read(SEGMENT_HEADER_BYTES_MAX))
            at = found[1] if found is not None else 0
            while at:
                file.seek(at)
                head = read_head(file.read(HEAD_BYTES))
                if head is None:
                    break
                if head.number > done:
                    return Oldest(head.first_at, _whole(head, file.read(head.body_bytes)))
                at += HEAD_BYTES + head.body_bytes
    return None


def _whole(head: Head, body: bytes) -> Record | None:
    try:
        return read_body(head, body) if is_whole(head, body) else None
    except (ValueError, KeyError, struct.error):
        return None
