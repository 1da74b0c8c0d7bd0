"""/debug/markets: the catalogue for people, one page at a time.

`?status=active&slot=orderbook/3&prefix=KXBTC&limit=100&after=TICKER`; the answer's `next` is the following `after`.
A browser gets it as a page with a form, anybody else as JSON.
"""

from collections.abc import Mapping
from html import escape
from typing import Any, Final
from urllib.parse import urlencode

from libs.marketdata.units import format_rfc3339
from libs.runtime.health import PageInvalid, PageUnavailable
from libs.store.catalogue import lend
from libs.store.catalogue_views import MarketView, list_markets
from libs.store.errors import StoreUnavailable
from libs.store.pool import Pool
from services.registry.counts import TOTAL, WANTED

LIMIT_MAX: Final = 1000
_KEYS: Final = frozenset({"status", "slot", "prefix", "limit", "after"})
_SUMS: Final = frozenset({TOTAL, WANTED})
_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>markets</title>
<style>body{{font:14px sans-serif}} td,th{{text-align:left;padding:1px 8px;white-space:nowrap}}
input{{width:9em}} table{{border-collapse:collapse}} tr:nth-child(even){{background:#eee}}</style>
<h1>Markets</h1><p>{counts}</p><form>{fields}<button>show</button></form>
<table><thead><tr>{heads}</thead><tbody>{rows}</tbody></table>{following}</html>
"""


def read_limit(query: Mapping[str, str]) -> int:
    """Read the page's size.

    Raises:
        PageInvalid: an unknown key, or a limit outside 1..1000.
    """
    unknown = sorted(query.keys() - _KEYS)
    if unknown:
        raise PageInvalid(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(_KEYS))}")
    text = query.get("limit", "100")
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise PageInvalid(f"limit: {text[:20]!r} is not a number within 1..{LIMIT_MAX}")
    return int(text)


async def markets_page(
    pool: Pool, query: Mapping[str, str], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Answer one page of markets with the counts by status.

    Raises:
        PageInvalid: the query is wrong.
        PageUnavailable: the database is away.
    """
    limit = read_limit(query)
    try:
        async with lend(pool) as conn:
            markets = await list_markets(
                conn,
                status=query.get("status") or None,
                slot=query.get("slot") or None,
                prefix=query.get("prefix", ""),
                after=query.get("after", ""),
                limit=limit,
            )
    except StoreUnavailable as error:
        raise PageUnavailable(f"the database is away: {error}") from error
    return {
        "counts": dict(counts),
        "markets": [market._asdict() for market in markets],
        "next": markets[-1].ticker if len(markets) == limit else None,
    }


def as_html(query: Mapping[str, str], answer: Mapping[str, Any]) -> str:
    """Write a page for a browser: the counts as links, a form with the filter, the markets, and the next page."""
    counts = " \u00b7 ".join(_count(status, number) for status, number in answer["counts"].items())
    fields = "".join(
        f'<label>{key} <input name="{key}" value="{escape(query.get(key, ""))}"></label> '
        for key in ("status", "slot", "prefix", "limit")
    )
    rows = "".join(
        f"<tr>{''.join(f'<td>{_cell(key, value)}' for key, value in market.items())}"
        for market in answer["markets"]
    )
    following = ""
    if answer["next"] is not None:
        link = _link({**query, "after": answer["next"]}, "next page")
        following = f"<p>{link}</p>"
    return _PAGE.format(
        counts=counts,
        fields=fields,
        heads="".join(f"<th>{name}" for name in MarketView._fields),
        rows=rows,
        following=following or "<p>no more</p>",
    )


def _count(status: str, number: int) -> str:
    text = f"{status} {number:,}"
    return escape(text) if status in _SUMS else _link({"status": status}, text)


def _link(query: Mapping[str, str], text: str) -> str:
    return f'<a href="?{escape(urlencode(query))}">{escape(text)}</a>'


def _cell(key: str, value: object) -> str:
    if value is None:
        return ""
    if key.endswith("_at") and isinstance(value, int):
        return escape(format_rfc3339(value))
    if key == "slot":
        return _link({"slot": str(value)}, str(value))
    return escape(str(value))
