"""Binary form of rows: what PostgreSQL's binary COPY carries, packed and read without a driver in between.

A row travels as `int16 column count, int32 8, int64 batch_id, payload`. The payload is every column of the table
but batch_id, so it is packed once, when the batch is sealed, whatever number the database gives the batch; its hash is
taken from the very bytes that are sent and again from the bytes that are read back.
"""

import functools
import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

import xxhash

from libs.marketdata.rows import ROW_TYPES, Ladder
from libs.marketdata.tables import GATHERER_TABLES, Column, Kind, Table

Row = TypeVar("Row", bound=tuple[Any, ...])

COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
COPY_TRAILER = struct.pack("!h", -1)
NULL = struct.pack("!i", -1)
INT8_OID = 20

_FIXED = {
    Kind.INT2: ("h", 2), Kind.INT4: ("i", 4), Kind.INT8: ("q", 8), Kind.BOOL: ("?", 1), Kind.UUID: ("16s", 16),
}  # fmt: skip
_length = struct.Struct("!i")
_count = struct.Struct("!h")
_prefix = struct.Struct("!hiq")
_ladder_head = struct.Struct("!iiiiiii")


class MalformedCopy(ValueError):
    """Bytes that are not the binary COPY form of this table."""


def row_hash(payload: bytes) -> int:
    """Hash one packed row to 64 bits, unsigned."""
    return xxhash.xxh3_64_intdigest(payload)


def rows_hash(payloads: Iterable[bytes]) -> int:
    """Sum the rows' hashes modulo 2**64, as a signed 64-bit integer; order does not matter, multiplicity does."""
    total = sum(map(xxhash.xxh3_64_intdigest, payloads)) & 0xFFFF_FFFF_FFFF_FFFF
    return total - (1 << 64) if total >> 63 else total


def pack_ladder(ladder: Ladder) -> bytes:
    """Pack one side of a book as bigint[][]; a side without levels is the empty array."""
    if not ladder:
        return struct.pack("!iii", 0, 0, INT8_OID)
    values = [word for level in ladder for number in level for word in (8, number)]
    head = _ladder_head.pack(2, 0, INT8_OID, len(ladder), 1, 2, 1)
    return head + struct.pack("!" + "iq" * (len(values) // 2), *values)


def unpack_ladder(data: bytes) -> Ladder:
    """Read what pack_ladder wrote.

    Raises:
        MalformedCopy: not an array of [price, size] pairs.
    """
    if len(data) == 12 and data[:4] == b"\x00\x00\x00\x00":
        return ()
    dimensions, _, oid, levels, _, width, _ = _ladder_head.unpack_from(data)
    if dimensions != 2 or oid != INT8_OID or width != 2:
        raise MalformedCopy("a ladder is an array of [price, size] pairs")
    numbers = struct.unpack_from("!" + "iq" * (2 * levels), data, _ladder_head.size)[1::2]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


@functools.lru_cache(maxsize=65_536)
def _uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _packer(kind: Kind) -> Callable[[Any], bytes]:
    """Return value -> its bytes without the length."""
    match kind:
        case Kind.TEXT:
            return str.encode
        case Kind.BYTES:
            return bytes
        case Kind.LADDER:
            return pack_ladder
        case Kind.UUID:
            return lambda value: value.bytes
        case _:
            return struct.Struct("!" + _FIXED[kind][0]).pack


def _unpacker(kind: Kind) -> Callable[[bytes], Any]:
    match kind:
        case Kind.TEXT:
            return bytes.decode
        case Kind.BYTES:
            return bytes
        case Kind.LADDER:
            return unpack_ladder
        case Kind.UUID:
            return _uuid
        case _:
            read = struct.Struct("!" + _FIXED[kind][0]).unpack
            return lambda data: read(data)[0]


def pack_columns(columns: Sequence[Column], values: Sequence[object]) -> bytes:
    """Pack values column by column with their lengths; the plain form that compiled encoders must equal."""
    parts = []
    for column, value in zip(columns, values, strict=True):
        if value is None:
            if not column.nullable:
                raise ValueError(f"column {column.name} is NULL but not nullable")
            parts.append(NULL)
        else:
            data = _packer(column.kind)(value)
            parts.append(_length.pack(len(data)) + data)
    return b"".join(parts)


def content_hash(table: Table, values: Sequence[object]) -> int:
    """Hash the values of the table's `hashed` columns, in their order: 8 bytes of blake2b, as signed int64."""
    by_name = {column.name: column for column in table.columns}
    data = pack_columns([by_name[name] for name in table.hashed], values)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big", signed=True)


def _compile_encoder(columns: Sequence[Column]) -> tuple[Callable[[Any], bytes], int]:
    """Build the encoder: one struct.pack for the leading fixed columns, one part for each of the others.

    Code is generated, as dataclasses do, because a loop over columns costs five times as much per row.
    """
    lead = 0
    while lead < len(columns) and columns[lead].kind in _FIXED and not columns[lead].nullable:
        lead += 1
    layout, arguments = "!", []
    for index, column in enumerate(columns[:lead]):
        code, width = _FIXED[column.kind]
        layout += "i" + code
        value = f"r[{index}].bytes" if column.kind is Kind.UUID else f"r[{index}]"
        arguments += [str(width), value]
    names: dict[str, Any] = {
        "fixed": struct.Struct(layout).pack,
        "length": _length.pack,
        "NULL": NULL,
    }
    parts = [f"fixed({', '.join(arguments)})"] if lead else []
    lines = ["def encode(r):"]
    for index, column in enumerate(columns[lead:], lead):
        names[f"pack{index}"] = _packer(column.kind)
        filled = f"length(len(v{index})) + v{index}"
        if column.nullable:
            lines.append(f"  v{index} = NULL if r[{index}] is None else pack{index}(r[{index}])")
            parts.append(f"(NULL if r[{index}] is None else {filled})")
        else:
            lines.append(f"  v{index} = pack{index}(r[{index}])")
            parts.append(filled)
    lines.append(f"  return {' + '.join(parts)}")
    exec("\n".join(lines), names)  # noqa: S102 - the text is built above from our own table descriptions
    return names["encode"], lead


class RowCodec(Generic[Row]):
    """Packs and reads rows of one column list.

    Args of the constructor: the columns in COPY order, and the type whose `_make` builds a row from their values.
    """

    def __init__(self, columns: Sequence[Column], make: Callable[[Iterable[Any]], Row]) -> None:
        self.columns = tuple(columns)
        self._make = make
        self.encode: Callable[[Row], bytes]
        self.encode, self._lead = _compile_encoder(columns)
        layout = "!" + "".join("i" + _FIXED[c.kind][0] for c in columns[: self._lead])
        self._fixed = struct.Struct(layout)
        self._uuids = [i for i, c in enumerate(columns[: self._lead]) if c.kind is Kind.UUID]
        self._rest = [_unpacker(column.kind) for column in columns[self._lead :]]

    def decode(self, data: bytes, offset: int = 0) -> tuple[Row, int]:
        """Read one packed row at offset; return it and the offset after it."""
        values: list[Any] = list(self._fixed.unpack_from(data, offset)[1::2])
        for index in self._uuids:
            values[index] = _uuid(values[index])
        offset += self._fixed.size
        for unpack in self._rest:
            (width,) = _length.unpack_from(data, offset)
            offset += 4
            if width < 0:
                values.append(None)
            else:
                values.append(unpack(data[offset : offset + width]))
                offset += width
        return self._make(values), offset


@functools.cache
def codec(table_name: str) -> RowCodec[Any]:
    """Return the codec of a table of facts."""
    table = GATHERER_TABLES[table_name]
    return RowCodec(table.columns, ROW_TYPES[table_name]._make)  # type: ignore[attr-defined]


def copy_prefix(columns: int, batch_id: int) -> bytes:
    """Return what stands before a payload in a COPY into a gatherer's table: count, length and value of batch_id."""
    return _prefix.pack(columns + 1, 8, batch_id)


def copy_stream(prefix: bytes, payloads: Sequence[bytes]) -> bytes:
    """Join packed rows to one binary COPY stream, each behind the same prefix."""
    if not payloads:
        return COPY_HEADER + COPY_TRAILER
    return COPY_HEADER + prefix + prefix.join(payloads) + COPY_TRAILER


def read_copy(data: bytes, table_name: str) -> Iterator[tuple[int, Any, bytes]]:
    """Yield (batch_id, row, payload) for each row of a binary COPY of (batch_id, columns...) out of a gatherer.

    Raises:
        MalformedCopy: no COPY header, another number of columns, or a stream cut short.
    """
    if not data.startswith(COPY_HEADER):
        raise MalformedCopy("no binary COPY header")
    row_codec = codec(table_name)
    columns, offset = len(row_codec.columns) + 1, len(COPY_HEADER)
    try:
        while True:
            (count,) = _count.unpack_from(data, offset)
            if count == -1:
                return
            if count != columns:
                raise MalformedCopy(f"{count} columns where {columns} were asked for")
            _, _, batch_id = _prefix.unpack_from(data, offset)
            start = offset + _prefix.size
            row, offset = row_codec.decode(data, start)
            yield batch_id, row, data[start:offset]
    except struct.error as error:
        raise MalformedCopy("the COPY stream is cut short") from error
