"""Rendezvous hashing of markets over order-book slots."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.slots import slot_name, slot_number

TICKERS = [f"KXTEST-{n // 10:05d}-T{n}" for n in range(6000)]


def test_placement_never_changes_between_versions() -> None:
    """Zones are upgraded one by one: these placements are a promise."""
    assert [slot_number(ticker, 144) for ticker in TICKERS[:5]] == [57, 100, 58, 120, 9]
    assert slot_name("KXBTC-26NOV20-T57399.99", 8) == "orderbook/7"


@given(st.text(min_size=1, max_size=60), st.integers(1, 200))
def test_a_slot_is_within_range_and_depends_on_the_ticker_alone(ticker: str, slots: int) -> None:
    """Any ticker has exactly one slot below the number of slots."""
    number = slot_number(ticker, slots)
    assert 0 <= number < slots
    assert slot_number(ticker, slots) == number


def test_markets_spread_evenly() -> None:
    """Every slot holds its share within the spread of a fair throw (mean 250, sigma below 16)."""
    counts = Counter(slot_number(ticker, 24) for ticker in TICKERS)
    assert len(counts) == 24
    assert all(abs(count - 250) < 5 * 16 for count in counts.values())


def test_one_slot_more_moves_only_what_it_wins() -> None:
    """Growing from 24 to 25 slots moves about a 25th of the markets, all of them to the new slot."""
    moved = [t for t in TICKERS if slot_number(t, 24) != slot_number(t, 25)]
    assert {slot_number(ticker, 25) for ticker in moved} == {24}
    assert 150 < len(moved) < 340


def test_no_slot_is_a_mistake_of_the_configuration() -> None:
    """Zero slots cannot hear anything."""
    with pytest.raises(ValueError, match="at least one"):
        slot_number("A", 0)
