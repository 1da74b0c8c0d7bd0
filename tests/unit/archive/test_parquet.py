"""Parquet objects from the CSV of COPY."""

from pathlib import Path

import pyarrow.parquet
import pytest

from libs.archive import parquet
from libs.archive.errors import ArchiveError, ObjectDiffers
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS, ORDERBOOK_SNAPSHOTS, REJECTED_FRAMES

CONNECTION = "00000000-0000-0000-0000-00000000000a"


def delta_csv(count: int) -> str:
    return "".join(
        f"{1000 + n},{2000 + n},-{n},{n},52000,1,1,{'tf'[n % 2]},{CONNECTION},M-{n % 7},{'' if n % 3 else 5},,2,{n}\n"
        for n in range(count)
    )


def written(tmp_path: Path, text: str, name: str = "a") -> tuple[Path, parquet.Written]:
    source, target = tmp_path / f"{name}.csv", tmp_path / f"{name}.parquet"
    source.write_text(text)
    return target, parquet.write_parquet(ORDERBOOK_DELTAS, source, target)


def test_columns_types_and_values_are_those_of_production(tmp_path: Path) -> None:
    """Integers stay integers, NULL stays NULL, and what the manifest says is what the file holds."""
    target, said = written(tmp_path, delta_csv(10))
    table = pyarrow.parquet.read_table(target)
    assert table.schema.names[-2:] == ["gatherer", "merge_no"]
    assert table.slice(3, 2).to_pylist()[0] == {
        "exchange_ts": 1003, "received_at": 2003, "size_delta": -3, "seq": 3, "price": 52000,
        "occurrence": 1, "sid": 1, "side": False, "connection": CONNECTION, "ticker": "M-3",
        "sent_at": 5, "pos": None, "gatherer": 2, "merge_no": 3,
    }  # fmt: skip
    assert (said.rows, said.time_min, said.time_max, said.ticker_min, said.ticker_max) == (
        10, 1000, 1009, "M-0", "M-6",
    )  # fmt: skip
    assert said.size_bytes == target.stat().st_size


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    """Byte for byte, also when rows fill more than one row group and more than one read block."""
    text = delta_csv(parquet.ROW_GROUP_ROWS + 5000)
    first, said = written(tmp_path, text, "a")
    second, again = written(tmp_path, text, "b")
    assert first.read_bytes() == second.read_bytes() and said == again
    meta = pyarrow.parquet.ParquetFile(first).metadata
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [
        parquet.ROW_GROUP_ROWS,
        5000,
    ]
    assert "DELTA_BINARY_PACKED" in meta.row_group(0).column(0).encodings
    assert meta.row_group(0).column(0).compression == "ZSTD"


def test_one_market_touches_at_most_two_row_groups(tmp_path: Path) -> None:
    """Of a window of 300,000 rows, by the statistics that every reader goes by; pages carry an index besides."""
    connection, source, target = CONNECTION, tmp_path / "w.csv", tmp_path / "w.parquet"
    markets = [f"M-{number:04d}" for number in range(600)]
    source.write_text(
        "".join(
            f"{at},{at},-1,{at},52000,1,1,t,{connection},{market},,,2,1\n"
            for market in markets
            for at in range(500)
        )
    )
    parquet.write_parquet(ORDERBOOK_DELTAS, source, target)
    meta = pyarrow.parquet.ParquetFile(target).metadata
    place = meta.schema.names.index("ticker")
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    assert [group.num_rows for group in groups] == [131_072, 131_072, 37_856]
    spans = [(said.min, said.max) for g in groups if (said := g.column(place).statistics)]
    assert len(spans) == 3
    touched = {m: sum(str(low) <= m <= str(high) for low, high in spans) for m in markets}
    assert (max(touched.values()), min(touched.values())) == (2, 1)
    assert sum(touched.values()) == len(markets) + 2
    assert all(group.column(place).has_column_index for group in groups)
    assert all(group.column(place).has_offset_index for group in groups)


def test_ladders_bytes_and_text_with_newlines_survive(tmp_path: Path) -> None:
    """JSON ladders become lists, hex becomes bytes, an empty side is not NULL, quotes and newlines stay."""
    source, target = tmp_path / "s.csv", tmp_path / "s.parquet"
    source.write_text(
        f'1,2,3,t,t,ws,M,{CONNECTION},1,7,1,,,,"[[100,5],[200,6]]",[],1,1\n1,2,3,f,f,rest,M,,,,,9,,,,,1,1\n'
    )
    parquet.write_parquet(ORDERBOOK_SNAPSHOTS, source, target)
    rows = pyarrow.parquet.read_table(target).to_pylist()
    assert [(r["yes"], r["no"]) for r in rows] == [([[100, 5], [200, 6]], []), (None, None)]
    source.write_text(f'5,1,f,"bad ""x""\ny",00ff,,,,,,{CONNECTION},3,1,1\n')
    parquet.write_parquet(REJECTED_FRAMES, source, target)
    (row,) = pyarrow.parquet.read_table(target).to_pylist()
    assert (row["reason"], row["frame"], row["ticker"]) == ('bad "x"\ny', b"\x00\xff", None)


def test_an_empty_window_is_an_empty_object(tmp_path: Path) -> None:
    """No rows, no ranges, still a readable file."""
    target, said = written(tmp_path, "")
    assert said.rows == 0 and said.time_min is None
    assert parquet.read_rows(target) == 0


def test_a_put_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that keeps something else is caught at once; a good put is listed and read."""
    store = ObjectStore(str(tmp_path / "archive"))
    target, said = written(tmp_path, delta_csv(3))
    store.put("t/a.parquet", target, said.sha256)
    store.put_small("t/a.manifest.json", b"{}")
    assert list(store.names()) == ["t/a.manifest.json", "t/a.parquet"]
    assert parquet.read_rows(store.get("t/a.parquet")) == 3
    with pytest.raises(ObjectDiffers):
        store.put("t/b.parquet", target, "0" * 64)


def test_rows_that_do_not_fit_are_an_error_of_the_archive(tmp_path: Path) -> None:
    """Whoever exports windows goes on with the next one."""
    with pytest.raises(ArchiveError):
        written(tmp_path, "not,a,row,of,this,table\n")
