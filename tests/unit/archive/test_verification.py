"""`verify` finds what is wrong with a bucket, from the bucket alone, and names the object and what of it."""

import itertools
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from libs.archive import parquet
from libs.archive.catalogue import Fault, Selection, read_catalogue
from libs.archive.inspection import order_fault, sort_columns
from libs.archive.manifest import Manifest, decode_manifest, encode_manifest
from libs.archive.superseding import set_aside, unrecorded
from libs.archive.verification import verify_objects
from libs.marketdata.tables import GATHERER_TABLES
from libs.marketdata.units import HOUR
from libs.store import windows
from tests.unit.archive.bucket import START, WHO, Bucket, sound


def faults_of(bucket: Bucket) -> list[Fault]:
    catalogue = read_catalogue(bucket.store)
    found = [fault for one in verify_objects(bucket.store, catalogue) for fault in one.faults]
    return [*catalogue.faults, *found]


def named(faults: list[Fault]) -> list[tuple[str, str]]:
    return [(fault.object, fault.field) for fault in faults]


def test_a_sound_bucket_has_no_fault(tmp_path: Path) -> None:
    """Every object is read, its gatherers are known."""
    bucket = sound(tmp_path)
    catalogue = read_catalogue(bucket.store)
    checked = list(verify_objects(bucket.store, catalogue))
    assert catalogue.manifests == bucket.manifests
    assert [(one.object, one.faults, one.gatherers) for one in checked] == [
        (manifest.object, (), frozenset({2})) for manifest in bucket.manifests
    ]


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    """Wherever it lies in the object, verify names that object and no other."""
    bucket, rng = sound(tmp_path), random.Random(1)
    victim = bucket.manifests[1]
    path = bucket.root / victim.object
    before = path.read_bytes()
    for place in (0, len(before) - 1, *rng.sample(range(len(before)), 20)):
        path.write_bytes(before[:place] + bytes([before[place] ^ 1 << rng.randrange(8)]) + before[place + 1 :])  # fmt: skip
        assert named(faults_of(bucket)) == [(victim.object, "sha256")], place
    path.write_bytes(before)
    assert faults_of(bucket) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rows", 4), ("bytes", 5), ("sha256", "0" * 64), ("time_min", 0), ("time_max", 0), ("ticker_min", "0"),
        ("ticker_max", "Z"), ("schema_version", 2), ("merge_from", 2),
    ],
)  # fmt: skip
def test_every_word_of_a_manifest_is_held_against_its_object(
    tmp_path: Path, field: str, value: object
) -> None:
    """A manifest that says anything else is a fault of that field."""
    bucket = sound(tmp_path)
    bucket.say(bucket.manifests[0], **{field: value})
    found = named(faults_of(bucket))
    assert (bucket.manifests[0].object, field) in found
    if field == "merge_from":
        assert (bucket.manifests[0].object, "merge_no") in found


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([("B", 1, 1), ("A", 2, 1)], "order"),
        ([("A", 2, 1), ("A", 1, 1)], "order"),
        ([("A", 1, 1), ("A", 1, 2)], "key"),
        ([("A", HOUR, 1)], "window"),
        ([("A", -1, 1)], "window"),
        ([("A", 1, 9)], "merge_no"),
    ],
)
def test_every_row_is_in_its_place(
    tmp_path: Path, rows: list[tuple[str, int, int]], field: str
) -> None:
    """Sorted by the whole key, no key twice, inside the window, merged inside (merge_from, merge_to]."""
    bucket = Bucket(tmp_path)
    made = bucket.put(rows, 0, (0, 3))
    assert named(faults_of(bucket)) == [(made.object, field)]


def test_order_is_checked_across_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last row of a group and the first of the next one are neighbours."""
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 2)
    bucket = Bucket(tmp_path)
    made = bucket.put([("A", 1, 1), ("A", 2, 1), ("A", 2, 2), ("A", 3, 1), ("A", 4, 1)], 0, (0, 3))
    (fault,) = faults_of(bucket)
    assert (fault.object, fault.field) == (made.object, "key")
    assert "rows 1 and 2" in fault.detail


def test_a_key_twice_in_a_window_is_found_over_its_supplements(tmp_path: Path) -> None:
    """Each object alone is sound; together they hold a fact twice."""
    bucket = Bucket(tmp_path)
    bucket.put([("A", 1, 1), ("B", 7, 1)], 0, (0, 1))
    bucket.put([("A", 2, 2)], 1, (1, 2))
    made = bucket.put([("A", 3, 3), ("B", 7, 3)], 2, (2, 3))
    (fault,) = faults_of(bucket)
    assert (fault.object, fault.field) == (made.object, "key") and "'B'" in fault.detail


def test_supplements_are_numbered_and_follow_each_other(tmp_path: Path) -> None:
    """A hole in the numbers or in the merges, and a window that begins at supplement 1, are faults."""
    bucket = Bucket(tmp_path)
    bucket.put([("A", 1, 1)], 0, (0, 1))
    hole = bucket.put([("A", 2, 2)], 2, (1, 2))
    gap = bucket.put([("A", 3, 5)], 3, (4, 5))
    late = bucket.put([("A", HOUR, 2)], 1, (1, 2), hour=1)
    odd = bucket.put([("A", 2 * HOUR, 2)], 0, (1, 2), hour=2)
    assert named(faults_of(bucket)) == [
        (hole.object, "supplement"), (gap.object, "merge_from"), (late.object, "supplement"),
        (odd.object, "merge_from"),
    ]  # fmt: skip


def test_two_histories_of_a_supplement_are_a_fault(tmp_path: Path) -> None:
    """As long as nobody has set one of them aside."""
    bucket = Bucket(tmp_path)
    bucket.put([("A", 1, 1)], 0, (0, 1))
    other = bucket.put([("A", 1, 1), ("A", 2, 2)], 0, (0, 2))
    assert (other.object, "supplement") in named(faults_of(bucket))


def test_windows_of_a_table_do_not_overlap(tmp_path: Path) -> None:
    """One that begins before another one ends holds its facts a second time."""
    bucket = sound(tmp_path)
    made = bucket.manifests[0]
    key = made.object.replace(f"-{START}-{START + HOUR}-", f"-{START + 5}-{START + 2 * HOUR}-")
    (bucket.root / key).write_bytes((bucket.root / made.object).read_bytes())
    said = decode_manifest(
        encode_manifest(made).replace(made.object.encode(), key.encode())
        .replace(b'"window_from": %d' % START, b'"window_from": %d' % (START + 5))
        .replace(b'"window_to": %d' % (START + HOUR), b'"window_to": %d' % (START + 2 * HOUR))
    )  # fmt: skip
    bucket.store.put_small(key.replace(".parquet", ".manifest.json"), encode_manifest(said))
    found = named(faults_of(bucket))
    assert (key, "window") in found
    assert (bucket.manifests[2].object, "window") in found


def test_what_belongs_to_nothing_is_named(tmp_path: Path) -> None:
    """Objects without manifest, manifests without object or reason, other names."""
    bucket = sound(tmp_path)
    one, other, third = bucket.manifests
    (bucket.root / one.object.replace(".parquet", ".manifest.json")).unlink()
    (bucket.root / other.object).unlink()
    (bucket.root / third.object.replace(".parquet", ".manifest.json")).write_text("{")
    (bucket.root / "orderbook_deltas" / "x.part").write_text("half")
    assert set(named(faults_of(bucket))) >= {
        (one.object, "orphan"),
        (other.object, "object"),
        (third.object.replace(".parquet", ".manifest.json"), "manifest"),
        ("orderbook_deltas/x.part", "name"),
    }


def test_another_schema_is_a_fault(tmp_path: Path) -> None:
    """Columns of another type or name, whatever the manifest says of the bytes."""
    bucket = sound(tmp_path)
    made = bucket.manifests[2]
    table = pyarrow.parquet.read_table(bucket.root / made.object, partitioning=None)
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table.rename_columns(["x", *table.schema.names[1:]]), sink)
    bucket.replace(made, sink.getvalue().to_pybytes())
    assert (made.object, "schema") in named(faults_of(bucket))


def test_what_was_set_aside_is_no_part_but_its_bytes_are_watched(tmp_path: Path) -> None:
    """It is listed as superseded; a damaged copy, or one without its note, is a fault: it may be the only one."""
    bucket = sound(tmp_path)
    lost = bucket.put([("A", 9, 7)], 2, (6, 7))
    window = read_catalogue(bucket.store).windows().__next__()[0][1]
    recorded = {manifest.object for manifest in bucket.manifests[:3]}
    (key,) = unrecorded(bucket.store, "orderbook_deltas", window, recorded)
    note = set_aside(bucket.store, key)
    catalogue = read_catalogue(bucket.store)
    assert [one.was for _, one in catalogue.superseded] == [lost.object]
    assert catalogue.manifests == bucket.manifests[:3]
    assert faults_of(bucket) == []
    assert note.object is not None
    path = bucket.root / note.object
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"x")
    assert named(faults_of(bucket)) == [(note.object, "sha256")]
    path.unlink()
    assert named(faults_of(bucket)) == [(note.object, "object")]
    path.write_bytes(before)
    (bucket.root / f"{note.object}.json").unlink()
    assert named(faults_of(bucket)) == [(note.object, "note")]


def test_a_part_of_the_archive(tmp_path: Path) -> None:
    """By table and by time; windows that touch the span count."""
    bucket = sound(tmp_path)
    later = read_catalogue(bucket.store, Selection(("orderbook_deltas",), START + HOUR))
    assert later.manifests == bucket.manifests[2:] and later.faults == []
    first = read_catalogue(bucket.store, Selection((), START, START + 1))
    assert first.manifests == bucket.manifests[:2]
    assert read_catalogue(bucket.store, Selection(("trades",))).manifests == []


def test_a_manifest_of_before_says_nothing_of_gatherers() -> None:
    """It decodes; the map is empty."""
    made = Manifest(
        table="trades", window_from=1, window_to=2, supplement=0, object="o", rows=3, bytes=4, sha256="5",
        time_min=None, time_max=7, ticker_min="A", ticker_max=None, merge_from=0, merge_to=9,
        schema_version=1, pyarrow_version="26", gatherers=WHO,
    )  # fmt: skip
    text = encode_manifest(made).decode()
    old = text[: text.index(' "gatherers"')] + text[text.index(' "merge_from"') :]
    assert decode_manifest(old.encode()).gatherers == ()


@pytest.mark.parametrize("name", sorted(GATHERER_TABLES))
def test_the_order_is_the_one_production_sorts_by(name: str) -> None:
    """The columns that verify compares are those of the export's ORDER BY, in their order."""
    table = GATHERER_TABLES[name]
    said = [word.split()[0].strip('"') for word in windows._order(table).split(", ")]
    assert list(sort_columns(table)) == said


def test_rows_are_compared_as_postgresql_sorts() -> None:
    """NULL after everything, false before true, one column after the other: every pair of rows."""
    kinds = (pa.int64(), pa.string(), pa.bool_())
    rows = list(itertools.product((1, 2, None), ("a", "b", None), (False, True, None)))
    for one, other in itertools.product(range(len(rows)), repeat=2):
        columns = [[rows[one][n], rows[other][n]] for n in range(3)]
        pair = pa.Table.from_arrays(
            [pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], ["a", "b", "c"]
        )
        fault = order_fault(pair, 0)
        assert (fault and fault[0]) == ("order" if one > other else "key" if one == other else None)
