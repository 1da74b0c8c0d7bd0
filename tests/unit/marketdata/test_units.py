"""Exact units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.marketdata import units


@pytest.mark.parametrize(
    ("text", "price"),
    [("0.52", 52_000), ("0.5250", 52_500), ("0.52505", 52_505), ("1.0000", 100_000), ("0", 0)],
)
def test_prices_are_exact(text: str, price: int) -> None:
    """Decimal dollars become hundred-thousandths without a float."""
    assert units.parse_price(text) == price


@pytest.mark.parametrize("text", ["0.525051", "1.0001", "-0.01", "", "1e-2", ".5", "0.5\n", "٣"])
def test_a_price_that_does_not_fit_is_refused(text: str) -> None:
    """Finer than 5 decimals, outside 0..1 or not a decimal: refused loudly."""
    with pytest.raises(units.ValueDoesNotFit):
        units.parse_price(text)


@pytest.mark.parametrize(
    ("text", "size"), [("47.03", 4703), ("-54.00", -5400), ("1651146.82", 165_114_682)]
)
def test_sizes_are_exact_and_signed(text: str, size: int) -> None:
    """Fractions of contracts become hundredths, changes keep their sign."""
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["0.001", "--1", "99999999999999999999"])
def test_a_size_that_does_not_fit_is_refused(text: str) -> None:
    """More than 2 decimals or beyond 64 bits: refused."""
    with pytest.raises(units.ValueDoesNotFit):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-06-11T06:31:29.957081Z", 1_781_159_489_957_081),
        ("2026-06-15T15:48:42.60323Z", 1_781_538_522_603_230),
        ("2025-08-01T00:00:32.539836022Z", 1_754_006_432_539_836),
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
    ],
)
def test_times_keep_microseconds(text: str, micros: int) -> None:
    """0 to 9 fractional digits, nanoseconds floored, offsets applied."""
    assert units.parse_rfc3339(text) == micros


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "x"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    """A time without a date, an offset or sense is refused."""
    with pytest.raises(units.ValueDoesNotFit):
        units.parse_rfc3339(text)


@given(st.integers(0, units.PRICE_ONE))
def test_price_round_trip(price: int) -> None:
    """parse of format is the identity."""
    assert units.parse_price(units.format_price(price)) == price


@given(st.integers(-(10**15), 10**15))
def test_size_round_trip(size: int) -> None:
    """parse of format is the identity."""
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 4 * 10**15))
def test_time_round_trip_and_milliseconds(micros: int) -> None:
    """parse of format is the identity; floor and ceil enclose the time within a millisecond."""
    assert units.parse_rfc3339(units.format_rfc3339(micros)) == micros
    low, high = units.floor_ms(micros), units.ceil_ms(micros)
    assert low <= micros <= high and high - low in (0, 1000)
