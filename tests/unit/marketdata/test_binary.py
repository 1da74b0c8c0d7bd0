"""Binary form of rows."""

import struct
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata import binary
from libs.marketdata.rows import ROW_TYPES, DeltaRow
from libs.marketdata.tables import GATHERER_TABLES, TICKERS, Kind, Table

LADDER = st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 10**12)), max_size=5).map(tuple)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INT2: st.integers(-(2**15), 2**15 - 1),
    Kind.INT4: st.integers(-(2**31), 2**31 - 1),
    Kind.INT8: st.integers(-(2**63), 2**63 - 1),
    Kind.BOOL: st.booleans(),
    Kind.UUID: st.uuids(),
    Kind.TEXT: st.text(st.characters(blacklist_characters="\x00", codec="utf-8"), max_size=20),
    Kind.BYTES: st.binary(max_size=40),
    Kind.LADDER: LADDER,
}


@st.composite
def table_rows(draw: st.DrawFn) -> tuple[Table, list[tuple[Any, ...]]]:
    table = draw(st.sampled_from(list(GATHERER_TABLES.values())))
    columns = [st.none() | VALUES[c.kind] if c.nullable else VALUES[c.kind] for c in table.columns]
    make = ROW_TYPES[table.name]._make  # type: ignore[attr-defined]
    return table, draw(st.lists(st.tuples(*columns).map(make), max_size=4))


@given(table_rows())
def test_rows_come_back_as_they_were_packed(case: tuple[Table, list[tuple[Any, ...]]]) -> None:
    """Every table's rows survive pack, COPY stream and read, with batch_id and the same payload bytes."""
    table, rows = case
    codec = binary.codec(table.name)
    payloads = [codec.encode(row) for row in rows]
    stream = binary.copy_stream(binary.copy_prefix(len(table.columns), 77), payloads)
    assert list(binary.read_copy(stream, table.name)) == [
        (77, row, payload) for row, payload in zip(rows, payloads, strict=True)
    ]


@given(table_rows())
def test_compiled_encoder_equals_the_plain_form(
    case: tuple[Table, list[tuple[Any, ...]]],
) -> None:
    """The generated encoder packs exactly what the column-by-column form packs."""
    table, rows = case
    for row in rows:
        assert binary.codec(table.name).encode(row) == binary.pack_columns(table.columns, row)


def delta(seq: int) -> bytes:
    row = DeltaRow(1, 2, -300, seq, 52_000, 1, 1, True, UUID(int=7), "A-B", None, None)
    return binary.codec("orderbook_deltas").encode(row)


def test_rows_hash_sees_a_vanished_pair_of_equal_rows_and_not_the_order() -> None:
    """A sum, not an exclusive or: two equal rows count, and the order of rows does not."""
    a, b = delta(1), delta(2)
    assert binary.rows_hash([a, b]) == binary.rows_hash([b, a])
    assert binary.rows_hash([a, a, b]) != binary.rows_hash([b])
    assert -(2**63) <= binary.rows_hash([a] * 50) < 2**63


def test_content_hash_is_that_of_the_named_columns_in_their_order() -> None:
    """The hash is pinned: it is part of the data model, and a change of it must be seen."""
    assert binary.content_hash(TICKERS, list(range(10))) == 2354325505922923414
    assert binary.content_hash(TICKERS, list(range(10))) != binary.content_hash(
        TICKERS, [1, 0, *range(2, 10)]
    )


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_stream_cut_short_is_refused(cut: int) -> None:
    """A truncated COPY never yields fewer rows in silence."""
    stream = binary.copy_stream(binary.copy_prefix(12, 1), [delta(1), delta(2)])
    with pytest.raises(binary.MalformedCopy):
        list(binary.read_copy(stream[: -2 - cut], "orderbook_deltas"))


def test_a_stream_of_another_table_is_refused() -> None:
    """The number of columns is checked before any is read."""
    stream = binary.copy_stream(binary.copy_prefix(12, 1), [delta(1)])
    with pytest.raises(binary.MalformedCopy, match="13 columns"):
        list(binary.read_copy(stream, "trades"))
    with pytest.raises(binary.MalformedCopy, match="header"):
        list(binary.read_copy(struct.pack("!h", -1), "trades"))
