"""Which markets are to be asked for their books now."""

from dataclasses import dataclass
from typing import LiteralString

from libs.store.pool import AnyConnection, map_store_errors

_OPEN: LiteralString = """
select ticker, status = 'active' as is_active from markets
where wanted and status in ('active', 'inactive') order by ticker
"""


@dataclass(frozen=True, slots=True)
class OpenMarkets:
    """The wanted markets that are open, ascending by ticker: all, those that trade, those that are paused."""

    tickers: list[str]
    active: list[str]
    others: list[str]


async def read_open_markets(conn: AnyConnection) -> OpenMarkets:
    """Return the open markets.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        rows = await conn.fetch(_OPEN)
    return OpenMarkets(
        [row[0] for row in rows],
        [row[0] for row in rows if row[1]],
        [row[0] for row in rows if not row[1]],
    )
