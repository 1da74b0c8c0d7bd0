"""Questions about the whole catalogue: what is due by the clock, what is wanted, what to show a person."""

from collections.abc import Sequence
from typing import NamedTuple

from libs.store.catalogue import MARKET_COLUMNS, MarketState
from libs.store.pool import AnyConnection, map_store_errors


class DueMarket(NamedTuple):
    """A market that may still open or close; times in microseconds."""

    ticker: str
    status: str
    open_at: int | None
    close_at: int | None


class MarketView(NamedTuple):
    """One market as /debug/markets shows it."""

    ticker: str
    event_ticker: str
    series_ticker: str
    status: str
    wanted: bool
    slot: str | None
    open_at: int | None
    close_at: int | None
    created_at: int | None
    updated_at: int


_VIEW_COLUMNS = ", ".join(MarketView._fields)


async def read_unfinished(conn: AnyConnection) -> list[DueMarket]:
    """Return every market that has not closed yet, as far as the catalogue knows."""
    with map_store_errors():
        rows = await conn.fetch(
            "select ticker, status, open_at, close_at from markets"
            " where wanted or status in ('initialized', 'inactive', 'active')"
        )
    return [DueMarket(*row) for row in rows]


async def read_event_series(conn: AnyConnection) -> dict[str, str]:
    """Return the series of every known event."""
    with map_store_errors():
        rows = await conn.fetch("select ticker, series_ticker from events")
    return {row[0]: row[1] for row in rows}


async def read_wanted(conn: AnyConnection) -> list[str]:
    """Return the tickers of all wanted markets, sorted."""
    with map_store_errors():
        rows = await conn.fetch("select ticker from markets where wanted order by ticker")
    return [row[0] for row in rows]


async def read_strays(
    conn: AnyConnection, slots: Sequence[str], limit: int
) -> dict[str, MarketState]:
    """Return at most so many wanted markets of slots that are none of these, by ticker."""
    with map_store_errors():
        others = await conn.fetch(
            "select slot from slot_versions where slot <> all($1::text[])", slots
        )
        if not others:
            return {}
        rows = await conn.fetch(
            f"select {MARKET_COLUMNS} from markets where wanted and slot = any($1::text[]) limit $2",
            [row[0] for row in others],
            limit,
        )
    return {row["ticker"]: MarketState(*row) for row in rows}


async def read_open(conn: AnyConnection) -> list[str]:
    """Return the tickers of all wanted markets that are open now, sorted."""
    with map_store_errors():
        rows = await conn.fetch(
            "select ticker from markets where wanted and status in ('active', 'inactive')"
            " order by ticker"
        )
    return [row[0] for row in rows]


async def read_captured(conn: AnyConnection, tickers: Sequence[str]) -> set[str]:
    """Return those of these markets that pass the capture filter: the ones with a slot."""
    with map_store_errors():
        rows = await conn.fetch(
            "select ticker from markets where ticker = any($1::text[]) and slot is not null",
            tickers,
        )
    return {row[0] for row in rows}


async def read_busiest(conn: AnyConnection, since: int, limit: int) -> list[str]:
    """Return the tickers with the most trades since then (exchange time, microseconds), busiest first."""
    with map_store_errors():
        rows = await conn.fetch(
            "select ticker from trades where exchange_ts >= $1"
            " group by ticker order by count(*) desc, ticker limit $2",
            since,
            limit,
        )
    return [row[0] for row in rows]


async def count_markets(conn: AnyConnection) -> dict[str, int]:
    """Return the number of markets by status, and under `wanted` and `total` those."""
    with map_store_errors():
        rows = await conn.fetch(
            "select status, count(*), count(*) filter (where wanted) from markets group by status"
        )
    counts = {row[0]: row[1] for row in rows}
    return counts | {"total": sum(counts.values()), "wanted": sum(row[2] for row in rows)}


async def list_markets(
    conn: AnyConnection,
    *,
    status: str | None = None,
    slot: str | None = None,
    prefix: str = "",
    after: str = "",
    limit: int = 100,
) -> list[MarketView]:
    """Return one page of markets by ticker, those after `after`; each filter is optional."""
    with map_store_errors():
        rows = await conn.fetch(
            f"select {_VIEW_COLUMNS} from markets"
            " where ticker > $1 and ($2::text is null or status = $2)"
            " and ($3::text is null or slot = $3) and ticker >= $4 and ticker < $4 || chr(1114111)"
            " order by ticker limit $5",
            after,
            status,
            slot,
            prefix,
            limit,
        )
    return [MarketView(*row) for row in rows]
