"""Which code may work on which schema."""

from libs.store.schema import level_fault


def test_equal_levels_fit() -> None:
    """Code and database of one level fit."""
    assert level_fault("gatherer", (3, 3), 3) is None


def test_a_newer_database_fits_while_it_allows_our_level() -> None:
    """Expand first: the previous level's code works on the new level."""
    assert level_fault("gatherer", (4, 3), 3) is None


def test_an_older_database_asks_for_the_migration() -> None:
    """The message names the database that is behind and the command."""
    fault = level_fault("production", (2, 1), 3)
    assert (
        fault is not None
        and "production database is at level 2" in fault
        and "kalshi-data migrate" in fault
    )


def test_older_code_than_the_database_allows_is_told_so() -> None:
    """The message says that the code is behind."""
    fault = level_fault("gatherer", (5, 4), 3)
    assert fault is not None and "this code is of level 3" in fault


def test_an_empty_database_is_named() -> None:
    """Without schema the message says so."""
    fault = level_fault("gatherer", None, 1)
    assert fault is not None and "no schema" in fault
