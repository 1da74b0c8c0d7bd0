"""Statuses by the exchange, by the clock, and what is wanted."""

import pytest

from services.registry.statuses import by_clock, is_before_close, is_wanted, next_due, rank

OPEN, CLOSE, AHEAD = 1_000, 2_000, 100


@pytest.mark.parametrize(
    ("status", "now", "becomes"),
    [
        ("initialized", 999, "initialized"),
        ("initialized", 1_000, "active"),
        ("initialized", 2_000, "closed"),
        ("active", 1_999, "active"),
        ("active", 2_000, "closed"),
        ("inactive", 2_000, "closed"),
        ("determined", 500, "determined"),
        ("finalized", 3_000, "finalized"),
    ],
)
def test_the_clock_opens_and_closes(status: str, now: int, becomes: str) -> None:
    """No message announces open and close: at open_at and close_at, to the microsecond, the clock does."""
    assert by_clock(status, OPEN, CLOSE, now) == becomes


def test_without_times_the_clock_says_nothing() -> None:
    """A market without open and close times keeps the exchange's word."""
    assert by_clock("initialized", None, None, 10**18) == "initialized"
    assert next_due("active", None, None, 0, AHEAD) is None


@pytest.mark.parametrize(
    ("status", "now", "wanted"),
    [
        ("initialized", 899, False),
        ("initialized", 900, True),
        ("active", 0, True),
        ("inactive", 0, True),
        ("a word of next year", 0, True),
        ("closed", 0, False),
        ("determined", 0, False),
        ("finalized", 0, False),
    ],
)
def test_wanted_from_shortly_before_opening_until_the_exchange_says_closed(
    status: str, now: int, wanted: bool
) -> None:
    """Subscribed `ahead` before the opening; an unknown status is heard rather than missed."""
    assert is_wanted(status, OPEN, now, AHEAD) is wanted


def test_next_due_walks_through_a_markets_life() -> None:
    """Ahead of opening, opening, close, nothing."""
    assert next_due("initialized", OPEN, CLOSE, 0, AHEAD) == 900
    assert next_due("initialized", OPEN, CLOSE, 900, AHEAD) == 1_000
    assert next_due("active", OPEN, CLOSE, 1_000, AHEAD) == 2_000
    assert next_due("closed", OPEN, CLOSE, 2_000, AHEAD) is None


def test_ranks_follow_a_markets_life() -> None:
    """A status never ranks below an earlier one of the same life."""
    life = ["initialized", "active", "closed", "determined", "finalized"]
    assert sorted(life, key=rank) == life
    assert [is_before_close(word) for word in life] == [True, True, False, False, False]
