"""/debug/markets: the catalogue for people, one page at a time.

`?status=active&slot=orderbook/3&prefix=KXBTC&limit=100&after=TICKER`; the answer's `next` is the following `after`.
"""

from collections.abc import Mapping
from typing import Any, Final

from libs.runtime.health import PageInvalid, PageUnavailable
from libs.store.catalogue import lend
from libs.store.catalogue_views import count_markets, list_markets
from libs.store.errors import StoreUnavailable
from libs.store.pool import Pool

LIMIT_MAX: Final = 1000
_KEYS: Final = frozenset({"status", "slot", "prefix", "limit", "after"})


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


async def markets_page(pool: Pool, query: Mapping[str, str]) -> dict[str, Any]:
    """Answer one page of markets with the counts by status.

    Raises:
        PageInvalid: the query is wrong.
        PageUnavailable: the database is away.
    """
    limit = read_limit(query)
    try:
        async with lend(pool) as conn:
            counts = await count_markets(conn)
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
        "counts": counts,
        "markets": [market._asdict() for market in markets],
        "next": markets[-1].ticker if len(markets) == limit else None,
    }
