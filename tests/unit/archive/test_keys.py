"""Names of archived objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.archive.keys import ObjectKey, Window, parse_key, window_of
from libs.archive.manifest import Manifest, decode_manifest, encode_manifest

HOUR = 3_600_000_000


def test_a_key_names_table_date_hour_window_and_supplement() -> None:
    """Readers find a day or an hour by prefix; the name alone says what is inside."""
    window = Window(1_781_157_600_000_000, 1_781_161_200_000_000)
    key = ObjectKey("trades", window, 2)
    assert str(key) == (
        "trades/date=2026-06-11/hour=06/trades-1781157600000000-1781161200000000-s2.parquet"
    )
    assert key.manifest.endswith("-s2.manifest.json")


@given(st.integers(0, 4 * 10**15), st.sampled_from([HOUR, 10_000_000]), st.integers(0, 12))
def test_names_round_trip(moment: int, width: int, supplement: int) -> None:
    """parse of print is the identity, and the window holds its moment."""
    key = ObjectKey("orderbook_deltas", window_of(moment, width), supplement)
    assert parse_key(str(key)) == key
    assert key.window.start <= moment < key.window.end == key.window.start + width


@pytest.mark.parametrize(
    "name",
    [
        "x.parquet",
        "trades/date=2026-06-12/hour=06/trades-1781157600000000-1781161200000000.parquet",
        "trades/date=2026-06-11/hour=06/tickers-1781157600000000-1781161200000000.parquet",
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
