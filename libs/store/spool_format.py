"""The spool's file format, pure: what a segment says of itself, and one record per sealed batch.

    segment   8 bytes of magic, length, JSON header, CRC-32 of the header, then records to the end of the file
    record    head of 40 bytes (its own CRC-32 last), then the body of the length and xxh3 that the head names
    body      length, JSON (tables, seq ranges, what a restatement needs), then per table the rows' lengths and the rows

Rows are kept exactly as they go over COPY, so a batch that comes back from the disk has the digest it went there with.
All integers are little-endian. The head names the rows, so that a body that is lost can still be counted.
"""

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

import xxhash

from libs.flow.batch import SidKey
from libs.store.batches import SCHEMA_VERSION, SealedBatch, SealedTable
from libs.store.errors import StoreError

FORMAT_VERSION: Final = 1
SEGMENT_MAGIC: Final = b"KDSPOOL\n"
RECORD_MAGIC: Final = b"KDRB"
SEGMENT_HEADER_BYTES_MAX: Final = 64 * 1024
BODY_BYTES_MAX: Final = 1 << 30
_head = struct.Struct("<4sIQqIQ")
_crc = struct.Struct("<I")
_length = struct.Struct("<I")
HEAD_BYTES: Final = _head.size + _crc.size


class SpoolRefused(StoreError):
    """Files of a spool that this code must not commit: another format, another schema or another zone; they are kept."""


class Gone(NamedTuple):
    """A market whose streams up to this number ended in what was dropped before a batch, though no row says so."""

    connection: UUID
    sid: int
    ticker: str | None
    stream: int


@dataclass(frozen=True, slots=True)
class Record:
    """A sealed batch that waits for its lane.

    Attributes:
        number: its place, 1, 2, 3 ... over the life of a process; never reused.
        first_at: when its first row came, microseconds.
        ended: the sids that have no frame after this batch.
        gone: streams whose closings were dropped between the batch before and this one.
    """

    number: int
    first_at: int
    sealed: SealedBatch
    ended: tuple[SidKey, ...] = ()
    gone: tuple[Gone, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Rows by table."""
        return {table.name: len(table.payloads) for table in self.sealed.tables}


@dataclass(frozen=True, slots=True)
class RunHeader:
    """Whose batches a segment holds; `first` is the number of its first record, opened_at microseconds.

    identity: of the zone's database; empty when it had not been reached yet. lane: the writer's at that time.
    """

    zone: str
    identity: str
    shard: str
    instance: str
    family: str
    lane: str
    opened_at: int
    first: int = 1
    format: int = field(default=FORMAT_VERSION)
    schema: int = field(default=SCHEMA_VERSION)


class Head(NamedTuple):
    """What a record's head says."""

    body_bytes: int
    number: int
    first_at: int
    rows: int
    body_hash: int


def pack_header(header: RunHeader) -> bytes:
    """Return the beginning of a segment."""
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    return SEGMENT_MAGIC + _length.pack(len(text)) + text + _crc.pack(zlib.crc32(text))


def read_header(data: bytes) -> tuple[RunHeader, int] | None:
    """Read a segment's beginning; return its header and where records begin, None when it is torn.

    Raises:
        SpoolRefused: written by a version of the format or schema that this code does not know.
    """
    start = len(SEGMENT_MAGIC) + _length.size
    if not data.startswith(SEGMENT_MAGIC) or len(data) < start:
        return None
    (length,) = _length.unpack_from(data, len(SEGMENT_MAGIC))
    text = data[start : start + length]
    if len(data) < start + length + _crc.size:
        return None
    (crc,) = _crc.unpack_from(data, start + length)
    if crc != zlib.crc32(text):
        return None
    found = json.loads(text)
    if (found.get("format"), found.get("schema")) != (FORMAT_VERSION, SCHEMA_VERSION):
        raise SpoolRefused(
            f"format {found.get('format')} and schema {found.get('schema')},"
            f" where {FORMAT_VERSION} and {SCHEMA_VERSION} are known"
        )
    return RunHeader(**found), start + length + _crc.size


def pack_record(record: Record) -> bytes:
    """Return head and body of a record."""
    sealed = record.sealed
    said = {
        "tables": [
            (t.name, len(t.payloads), t.row_hash, t.time_from, t.time_to) for t in sealed.tables
        ],
        "sids": sealed.sids_json,
        "size": sealed.size_bytes,
        "ended": [(str(connection), sid) for connection, sid in record.ended],
        "gone": [(str(g.connection), g.sid, g.ticker, g.stream) for g in record.gone],
    }
    text = json.dumps(said, separators=(",", ":")).encode()
    parts = [_length.pack(len(text)), text]
    for table in sealed.tables:
        parts.append(_lengths(map(len, table.payloads)))
        parts += table.payloads
    body = b"".join(parts)
    head = _head.pack(
        RECORD_MAGIC, len(body), record.number, record.first_at, sealed.rows,
        xxhash.xxh3_64_intdigest(body),
    )  # fmt: skip
    return head + _crc.pack(zlib.crc32(head)) + body


def read_head(data: bytes) -> Head | None:
    """Read a record's head; None when these bytes are none."""
    if len(data) < HEAD_BYTES or not data.startswith(RECORD_MAGIC):
        return None
    (crc,) = _crc.unpack_from(data, _head.size)
    if crc != zlib.crc32(data[: _head.size]):
        return None
    head = Head(*_head.unpack_from(data)[1:])
    return head if head.body_bytes <= BODY_BYTES_MAX else None


def is_whole(head: Head, body: bytes) -> bool:
    """True when the body is the one that its head was written for."""
    return len(body) == head.body_bytes and xxhash.xxh3_64_intdigest(body) == head.body_hash


def read_body(head: Head, body: bytes) -> Record:
    """Read a record whose body is whole."""
    (length,) = _length.unpack_from(body)
    at = _length.size + length
    said: dict[str, Any] = json.loads(body[_length.size : at])
    tables = []
    for name, rows, row_hash, time_from, time_to in said["tables"]:
        ends = accumulate(_read_lengths(body[at : at + 4 * rows]), initial=at + 4 * rows)
        payloads = tuple(body[start:end] for start, end in pairwise(ends))
        at += 4 * rows + sum(map(len, payloads))
        tables.append(SealedTable(name, payloads, row_hash, time_from, time_to))
    sealed = SealedBatch(tuple(tables), head.rows, said["size"], said["sids"])
    ended = tuple((UUID(connection), sid) for connection, sid in said["ended"])
    gone = tuple(Gone(UUID(c), sid, ticker, stream) for c, sid, ticker, stream in said["gone"])
    return Record(head.number, head.first_at, sealed, ended, gone)


def _lengths(values: Iterable[int]) -> bytes:
    packed = array("I", values)
    assert packed.itemsize == _length.size
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _read_lengths(data: bytes) -> "array[int]":
    lengths = array("I")
    lengths.frombytes(data)
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths
