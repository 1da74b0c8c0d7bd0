"""Names of archived objects."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libs.archive.keys import BIGINT_MAX, BIGINT_MIN, ObjectKey, Window, parse_key, window_of
from libs.archive.manifest import Manifest, decode_manifest, encode_manifest

HOUR = 3_600_000_000


def test_a_key_names_table_date_hour_window_and_supplement() -> None:
    """Readers find a day or an hour by prefix; the name alone says what is inside."""
    window = Window(1_781_157_600_000_000, 1_781_161_200_000_000)
    key = ObjectKey("trades", window, 2, 77)
    assert str(key) == (
        "trades/date=2026-06-11/hour=06/trades-1781157600000000-1781161200000000-s2-m77.parquet"
    )
    assert key.manifest.endswith("-s2-m77.manifest.json")


@given(
    st.integers(0, 4 * 10**15),
    st.sampled_from([HOUR, 10_000_000]),
    st.integers(0, 12),
    st.integers(0),
)
def test_names_round_trip(moment: int, width: int, supplement: int, merge_to: int) -> None:
    """parse of print is the identity, and the window holds its moment."""
    key = ObjectKey("orderbook_deltas", window_of(moment, width), supplement, merge_to)
    assert parse_key(str(key)) == key
    assert key.window.start <= moment < key.window.end == key.window.start + width


@given(st.integers(BIGINT_MIN, BIGINT_MAX), st.sampled_from([HOUR, 10_000_000, 24 * HOUR]))
@example(BIGINT_MIN, HOUR)
@example(BIGINT_MAX, HOUR)
@example(-1, HOUR)
def test_every_moment_of_bigint_has_a_window_and_a_name(moment: int, width: int) -> None:
    """Also before 1970 and beyond the year 9999, where there is no date of four digits."""
    window = window_of(moment, width)
    assert BIGINT_MIN <= window.start <= moment <= window.last <= BIGINT_MAX
    key = ObjectKey("trades", window, 0, 3)
    assert parse_key(str(key)) == key


def test_attempts_that_hold_other_rows_have_other_names() -> None:
    """Two attempts at the same supplement, one of them seeing one merge more, never meet."""
    window = window_of(0, HOUR)
    one, other = (ObjectKey("trades", window, 1, merge_to) for merge_to in (5, 6))
    assert str(one) != str(other) and one.manifest != other.manifest


def test_times_without_a_date_lie_in_the_first_and_the_last_folder() -> None:
    """A reader of one day or hour does not meet them anywhere else."""
    before, beyond = window_of(-5, HOUR), window_of(BIGINT_MAX // 2, HOUR)
    assert "/date=1970-01-01/hour=00/" in str(ObjectKey("trades", before, 0, 1))
    assert "/date=9999-12-31/hour=23/" in str(ObjectKey("trades", beyond, 0, 1))


@pytest.mark.parametrize(
    "name",
    [
        "x.parquet",
        "trades/date=2026-06-12/hour=06/trades-1781157600000000-1781161200000000-m1.parquet",
        "trades/date=2026-06-11/hour=06/tickers-1781157600000000-1781161200000000-m1.parquet",
    ],
)
def test_foreign_names_are_refused(name: str) -> None:
    """Another shape, a date that does not fit the window, another table inside."""
    with pytest.raises(ValueError, match=r"archive|window"):
        parse_key(name)


def test_manifests_round_trip_and_are_deterministic() -> None:
    """The same manifest is the same bytes; nothing is lost."""
    manifest = Manifest(
        table="trades", window_from=1, window_to=2, supplement=0, object="o", rows=3, bytes=4, sha256="5",
        time_min=None, time_max=7, ticker_min="A", ticker_max=None, merge_from=0, merge_to=9,
        schema_version=1, pyarrow_version="26",
    )  # fmt: skip
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert encode_manifest(manifest) == encode_manifest(decode_manifest(encode_manifest(manifest)))
