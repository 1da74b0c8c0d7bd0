"""Sealing a batch: what is packed, counted, hashed and numbered."""

import json
from uuid import UUID

import pytest

from libs.marketdata.binary import codec, copy_prefix, read_copy, rows_hash
from libs.marketdata.rows import DeltaRow, GapRow, ListenRangeRow
from libs.store.batches import PREFIX_BYTES, Digest, SealedBatch, seal

CONNECTION = UUID("01890000-0000-7000-8000-000000000001")


def delta(number: int, *, exchange_ts: int = 1_000_000) -> DeltaRow:
    return DeltaRow(
        exchange_ts, 7, -100, number, 52_000, 1, 3, True, CONNECTION, "TICKER", None, None
    )


def listened(seq_from: int, seq_to: int) -> ListenRangeRow:
    return ListenRangeRow(9, seq_from, seq_to, 1, 2, 1_000_000, 3, 0, CONNECTION, "orderbook_delta")


def gap(reason: str) -> GapRow:
    return GapRow(
        11, 0, "trade", "trade/0", reason, "", None, None, None, None, None, None, None, None, None,
        None,
    )  # fmt: skip


def test_rows_come_back_from_the_copy_stream_as_they_went_in() -> None:
    """The COPY stream of a sealed table holds each row once, in order, under the batch_id given at sending."""
    rows = [delta(n) for n in range(1, 4)]
    (table,) = seal({"orderbook_deltas": rows}).tables
    read = list(read_copy(table.copy_bytes(77), "orderbook_deltas"))
    assert [batch_id for batch_id, _, _ in read] == [77, 77, 77]
    assert [row for _, row, _ in read] == rows
    assert tuple(payload for _, _, payload in read) == table.payloads
    assert table.columns[:2] == ("batch_id", "exchange_ts")


def test_counts_hashes_times_and_bytes_are_those_of_the_rows() -> None:
    """The digest, time range and size describe exactly the payloads."""
    rows = [delta(1, exchange_ts=30), delta(2, exchange_ts=10), delta(3, exchange_ts=20)]
    batch = seal({"orderbook_deltas": rows, "listen_ranges": [listened(1, 3)]})
    deltas, ranges = batch.tables
    payloads = [codec("orderbook_deltas").encode(row) for row in rows]
    assert (deltas.time_from, deltas.time_to) == (10, 30)
    assert (ranges.time_from, ranges.time_to) == (9, 9)
    assert deltas.row_hash == rows_hash(payloads)
    assert batch.rows == 4
    assert batch.digest == Digest(
        ("orderbook_deltas", "listen_ranges"),
        (3, 1),
        (deltas.row_hash, ranges.row_hash),
    )
    sent = sum(len(table.copy_bytes(1)) for table in batch.tables)
    headers_and_trailers = 2 * (19 + 2)
    assert batch.size_bytes == sent - headers_and_trailers
    assert len(copy_prefix(12, 5)) == PREFIX_BYTES


def test_rows_of_observation_tables_are_numbered_within_the_batch() -> None:
    """Tables whose identity is the place in the lane get row_no 1..n per table; other columns stay as given."""
    batch = seal(
        {"gaps": [gap("seq"), gap("silent")], "listen_ranges": [listened(1, 2), listened(4, 5)]}
    )
    by_name = {table.name: table for table in batch.tables}
    gaps = [row for _, row, _ in read_copy(by_name["gaps"].copy_bytes(1), "gaps")]
    ranges = [
        row for _, row, _ in read_copy(by_name["listen_ranges"].copy_bytes(1), "listen_ranges")
    ]
    assert [(row.row_no, row.reason) for row in gaps] == [(1, "seq"), (2, "silent")]
    assert [(row.row_no, row.seq_from) for row in ranges] == [(1, 1), (2, 4)]


def test_the_ledger_names_the_seq_ranges_of_the_batch() -> None:
    """sids_json lists connection, sid and seq range of each listen_ranges row, and is [] without any."""
    batch = seal({"listen_ranges": [listened(1, 2), listened(4, 9)]})
    assert json.loads(batch.sids_json) == [
        {"connection": str(CONNECTION), "sid": 3, "from": 1, "to": 2},
        {"connection": str(CONNECTION), "sid": 3, "from": 4, "to": 9},
    ]
    assert seal({"gaps": [gap("seq")]}).sids_json == "[]"


def test_digest_tells_batches_apart() -> None:
    """Equal rows give equal digests in any order; a changed, doubled or missing row, even of an equal pair, does not."""

    def digest(*numbers: int) -> object:
        return seal({"orderbook_deltas": [delta(n) for n in numbers]}).digest

    assert digest(1, 2) == digest(2, 1)
    assert len({digest(1, 2), digest(1, 3), digest(1, 2, 2), digest(1), digest(1, 1, 2)}) == 5


def test_tables_without_rows_are_left_out_and_order_is_fixed() -> None:
    """The tables of a batch stand in the order of the table list, whatever order they were given in."""
    one: SealedBatch = seal({"gaps": [gap("seq")], "trades": [], "orderbook_deltas": [delta(1)]})
    other = seal({"orderbook_deltas": [delta(1)], "gaps": [gap("seq")]})
    assert one == other
    assert [table.name for table in one.tables] == ["orderbook_deltas", "gaps"]


def test_an_empty_batch_and_an_unknown_table_are_refused() -> None:
    """Nothing to commit and a table that is not of the model are the caller's mistakes."""
    with pytest.raises(ValueError, match="at least one row"):
        seal({"trades": []})
    with pytest.raises(KeyError, match="weather"):
        seal({"weather": [(1,)]})
