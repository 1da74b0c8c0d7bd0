"""Splitting names over requests, and the /debug page's query."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.runtime.health import PageInvalid
from services.registry.debug import read_limit
from services.registry.sync import LOOK_CHARS_MAX, chunks


@given(st.lists(st.text("ABC-.", min_size=1, max_size=200), max_size=300))
def test_every_name_is_asked_once_in_addresses_that_fit(tickers: list[str]) -> None:
    """Whatever the tickers' lengths: all of them, in order, at most 100 a request and no line too long."""
    split = list(chunks(tickers))
    assert [ticker for chunk in split for ticker in chunk] == tickers
    assert all(0 < len(chunk) <= 100 for chunk in split)
    assert all(sum(len(t) + 3 for t in chunk) <= LOOK_CHARS_MAX for chunk in split)


def test_the_page_size_is_a_number_within_bounds() -> None:
    """100 by default; a wrong number or an unknown key is refused by name."""
    assert read_limit({}) == 100
    assert read_limit({"limit": "1000", "status": "active", "after": "A"}) == 1000
    for query in ({"limit": "0"}, {"limit": "1001"}, {"limit": "ten"}, {"limit": "-1"}):
        with pytest.raises(PageInvalid, match="limit"):
            read_limit(query)
    with pytest.raises(PageInvalid, match="stauts"):
        read_limit({"stauts": "active"})
