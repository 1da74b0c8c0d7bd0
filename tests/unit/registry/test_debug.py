"""/debug/markets: its query, and its page for a browser."""

from typing import Any

import pytest

from libs.runtime.health import PageInvalid
from libs.store.catalogue_views import MarketView
from services.registry.debug import as_html, read_limit
from tests.unit.registry.factories import NOW


def test_the_page_size_is_a_number_within_bounds() -> None:
    """100 by default; a wrong number or an unknown key is refused by name."""
    assert read_limit({}) == 100
    assert read_limit({"limit": "1000", "status": "active", "after": "A"}) == 1000
    for query in ({"limit": "0"}, {"limit": "1001"}, {"limit": "ten"}, {"limit": "-1"}):
        with pytest.raises(PageInvalid, match="limit"):
            read_limit(query)
    with pytest.raises(PageInvalid, match="stauts"):
        read_limit({"stauts": "active"})


def _answer(following: str | None = None, **changes: Any) -> dict[str, Any]:
    market = MarketView("KXA-1", "KXA", "KX", "active", True, "orderbook/3", NOW, None, None, NOW)
    return {
        "counts": {"active": 1234, "total": 1234, "wanted": 1},
        "markets": [market._replace(**changes)._asdict()],
        "next": following,
    }


def test_a_browser_gets_counts_filter_markets_and_the_next_page() -> None:
    """Counts lead to their filter, which stays in the form and in the link to the next page; times can be read."""
    page = as_html({"status": "active", "limit": "1"}, _answer("KXA-1"))
    assert '<a href="?status=active">active 1,234</a>' in page
    assert '<input name="status" value="active">' in page
    assert '<a href="?status=active&amp;limit=1&amp;after=KXA-1">next page</a>' in page
    assert "<td>KXA-1<td>KXA<td>KX<td>active<td>True" in page
    assert "<td>2026-11-18T11:06:40Z<td>" in page
    assert "no more" in as_html({}, _answer())


def test_what_the_exchange_and_the_query_say_is_no_markup() -> None:
    """Tickers and query are text, whatever stands in them."""
    page = as_html({"prefix": '"><script>'}, _answer(ticker="<b>&", slot='a"b'))
    assert "<script>" not in page
    assert "<td>&lt;b&gt;&amp;" in page
    assert 'href="?slot=a%22b"' in page
