"""Reading a run's segments front to back: records in order, and what is lost between them.

A record is believed only with both of its checksums and a number not seen before. What does not hold is skipped by the
length in its head, or to the end of its segment where the head itself is torn; the numbers say how much that was.
"""

import os
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
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


class Lost(NamedTuple):
    """Records that cannot be read: number_from..number_to (None: nobody knows how many), rows if their head is whole."""

    number_from: int
    number_to: int | None
    rows: int | None


@dataclass(slots=True)
class Segment:
    """A file of a run. first: the number of its first record. size: bytes of it that are whole."""

    path: Path
    first: int
    size: int


class SegmentReader:
    """See the module. Not while another thread changes the segments.

    Args of the constructor: the segments, which may grow at their end and lose what was read; `last` gives the number of
    the last record that was written by this process (None: another one's); `leave` stops the writing of the last segment.

    Attributes:
        expected: number of the next record; 0 before the first is known.
    """

    def __init__(
        self, segments: deque[Segment], last: Callable[[], int | None], leave: Callable[[], None]
    ) -> None:
        self.expected = 0
        self._segments = segments
        self._last = last
        self._leave = leave
        self._at: tuple[Segment, int] | None = None

    @property
    def segment(self) -> Segment | None:
        """The one that is being read; None before the first."""
        return self._at[0] if self._at is not None else None

    def read(self, size_bytes: int) -> list[Record | Lost]:
        """Return the next records, about so many bytes of them; nothing when everything appended was read.

        Raises:
            OSError: the disk does not give them; call again, or skip().
        """
        found: list[Record | Lost] = []
        taken = 0
        while taken < size_bytes:
            before = self._at
            try:
                items = self._next()
            except OSError:
                if found:
                    break  # the next call says it
                raise
            if not items and self._at == before:
                break
            found += items
            taken += sum(item.sealed.size_bytes for item in items if isinstance(item, Record))
        return found

    def skip(self) -> list[Lost]:
        """Give up the segment that is being read; nothing may be lost by it, when it was read to its end."""
        at = self._begin_reading()
        if at is None:
            return []
        segment = at[0]
        if self._following(segment) is not None:
            return self._end_segment(segment)
        self._at = (segment, segment.size)
        known = self._last()
        lost = [Lost(self.expected, known, None)]
        self.expected = (known or self.expected) + 1
        return lost

    def _begin_reading(self) -> tuple[Segment, int] | None:
        if self._at is None and self._segments:
            self._at = (self._segments[0], 0)
        return self._at

    def _next(self) -> list[Record | Lost]:
        """Take one step: a record, what is lost before it, or from one segment to the next."""
        at = self._begin_reading()
        if at is None:
            return []
        segment, offset = at
        if offset and offset >= segment.size:
            # Without opening it: what was given up may not even be opened.
            return [*self._end_segment(segment)]
        with segment.path.open("rb") as file:
            if offset == 0:
                found = read_header(file.read(SEGMENT_HEADER_BYTES_MAX))
                if found is None:
                    return [*self.skip()]
                self._at = (segment, found[1])
                return []
            file.seek(offset)
            head = read_head(file.read(HEAD_BYTES))
            if head is None or head.number < self.expected:
                return [*self._end_segment(segment, cut_at=offset)]
            body = file.read(head.body_bytes)
        end = offset + HEAD_BYTES + head.body_bytes
        following = self._following(segment)
        if end > segment.size and following is not None and following.first <= head.number:
            # Its writing failed, and it was written again behind.
            return [*self._end_segment(segment)]
        lost: list[Record | Lost] = [*self._missing_before(head.number)]
        self.expected = head.number + 1
        self._at = (segment, min(end, segment.size))
        if is_whole(head, body):
            return [*lost, _checked(head, body)]
        if end > segment.size and following is None:
            self._cut(segment, offset)
        return [*lost, Lost(head.number, head.number, head.rows)]

    def _missing_before(self, number: int) -> list[Lost]:
        return [Lost(self.expected, number - 1, None)] if number > self.expected else []

    def _end_segment(self, segment: Segment, *, cut_at: int | None = None) -> list[Lost]:
        """Go on with the next segment; the last one stays where it is, cut where it is torn."""
        following = self._following(segment)
        if following is not None:
            lost = self._missing_before(following.first)
            self.expected = max(self.expected, following.first)
            self._at = (following, 0)
            return lost
        if cut_at is None:
            return []
        self._cut(segment, cut_at)
        known = self._last()
        lost = [Lost(self.expected, known, None)] if known != self.expected - 1 else []
        self.expected = (known or self.expected) + 1
        return lost

    def _following(self, segment: Segment) -> Segment | None:
        index = self._segments.index(segment) + 1
        return self._segments[index] if index < len(self._segments) else None

    def _cut(self, segment: Segment, size: int) -> None:
        """Cut a torn tail off, unless it is still being written."""
        if segment is self._segments[-1]:
            self._leave()
        os.truncate(segment.path, size)
        segment.size = size
        self._at = (segment, size)


def _checked(head: Head, body: bytes) -> Record | Lost:
    try:
        return read_body(head, body)
    except (ValueError, KeyError, struct.error):
        # Whole, but not ours to read: the same loss as a torn one.
        return Lost(head.number, head.number, head.rows)
