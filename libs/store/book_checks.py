"""What a comparison of stored books with the exchange's answers reads of a zone's database, and where it is written.

Everything is asked for many markets at once and of the last minutes, because rows are found by their batch and not by
market; the number of rows that come back is bounded. batch_from: the first batch that may hold what is asked for.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final, LiteralString, NamedTuple
from uuid import UUID

from libs.marketdata.listening import ORDERBOOK_CHANNEL, Sid
from libs.marketdata.rows import Ladder
from libs.store.pool import AnyConnection, map_store_errors

FORGET_MAX: Final = 50_000
DELTAS_MAX: Final = 200_000
"""Deltas of one reading, over all markets."""


class WsBook(NamedTuple):
    """A book seen on the socket, with ladders."""

    ticker: str
    connection: UUID
    sid: int
    seq: int
    observed_at: int
    yes: Ladder
    no: Ladder


class Opening(NamedTuple):
    """A stream's beginning; ticker NULL: of all streams of the sid."""

    ticker: str | None
    connection: UUID
    sid: int
    seq: int
    sent_at: int
    margin: int


class Closing(NamedTuple):
    """A stream's end; ticker NULL: of all streams of the sid."""

    ticker: str | None
    connection: UUID
    sid: int
    seq: int


class Island(NamedTuple):
    """Frames of one sid without a hole: numbers, times of the first and last frame, end margin; microseconds."""

    connection: UUID
    sid: int
    seq_from: int
    seq_to: int
    sent_from: int
    sent_to: int
    margin: int


class Stream(NamedTuple):
    """Deltas of `ticker` on one sid with seq_after < seq <= seq_to are wanted, from since_ts on (exchange time)."""

    ticker: str
    connection: UUID
    sid: int
    seq_after: int
    seq_to: int
    since_ts: int


class CheckRow(NamedTuple):
    """A row of book_checks but its time."""

    ticker: str
    outcome: str
    reason: str
    base: str
    requested_at: int
    received_at: int
    base_at: int | None
    matched_ts: int | None
    deltas: int
    connection: UUID | None
    sid: int | None
    detail: str


_WS_BOOKS: LiteralString = """
select distinct on (ticker) ticker, connection, sid, seq, observed_at, yes, no
from orderbook_snapshots
where batch_id >= $4 and observed_at between $2 and $3 and ticker = any($1::text[]) and source = 'ws'
  and yes is not null
order by ticker, observed_at desc
"""
_OPENINGS: LiteralString = """
select distinct on (o.ticker, o.connection, o.sid) o.ticker, o.connection, o.sid, o.seq, o.sent_at, o.margin
from listen_opened o
join unnest($4::uuid[], $5::int[]) as s (connection, sid) on s.connection = o.connection and s.sid = o.sid
where o.channel = $2 and o.ticker = any($1::text[])
order by o.ticker, o.connection, o.sid, o.seq desc
limit $3
"""
_SID_OPENINGS: LiteralString = """
select distinct on (o.connection, o.sid) null::text as ticker, o.connection, o.sid, o.seq, o.sent_at, o.margin
from listen_opened o
join unnest($1::uuid[], $2::int[]) as s (connection, sid) on s.connection = o.connection and s.sid = o.sid
where o.ticker is null
order by o.connection, o.sid, o.seq desc
"""
_CLOSINGS: LiteralString = """
select c.ticker, c.connection, c.sid, max(c.seq) as seq
from listen_closed c
join unnest($1::uuid[], $2::int[]) as s (connection, sid) on s.connection = c.connection and s.sid = c.sid
where c.ticker is null or c.ticker = any($3::text[])
group by c.ticker, c.connection, c.sid
"""
_ISLANDS: LiteralString = """
with marked as (
    select r.connection, r.sid, r.seq_from, r.seq_to, r.sent_from, r.sent_to, r.margin,
           max(r.seq_to) over (partition by r.connection, r.sid order by r.seq_from, r.seq_to
                               rows between unbounded preceding and 1 preceding) as reached
    from listen_ranges r
    where r.batch_id >= $3 and r.received_at >= $1 and r.channel = $2
), numbered as (
    select *, count(*) filter (where seq_from > reached + 1)
        over (partition by connection, sid order by seq_from, seq_to rows unbounded preceding) as island
    from marked
)
select connection, sid, min(seq_from), max(seq_to), min(sent_from), (max(array[seq_to, sent_to]))[2], max(margin)
from numbered group by connection, sid, island
"""
"""As the view `listening` joins ranges, of a short time."""
_DELTAS: LiteralString = """
select ticker, seq, exchange_ts, side, price, size_delta
from (
    select d.ticker, d.seq, d.exchange_ts, d.side, d.price, d.size_delta,
           row_number() over (partition by d.ticker order by d.seq) as number
    from orderbook_deltas d
    join unnest($1::text[], $2::uuid[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[])
        as s (ticker, connection, sid, seq_after, seq_to, since_ts)
        on s.ticker = d.ticker and s.connection = d.connection and s.sid = d.sid
    where d.ticker = any($1::text[]) and d.batch_id >= $10 and d.exchange_ts >= $7 and d.exchange_ts >= s.since_ts and d.seq > s.seq_after and d.seq <= s.seq_to
) found
where number <= $8
order by ticker, seq
limit $9
"""
"""The tickers are looked for while rows are read, or all of them would be held to be joined."""
_ADD: LiteralString = """
insert into book_checks (ticker, outcome, reason, base, requested_at, received_at, base_at, matched_ts, deltas,
    connection, sid, detail)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::bigint[], $9::int[], $10::uuid[], $11::int[], $12::text[])
"""
_FORGET: LiteralString = """
delete from book_checks where ctid = any(array(
    select ctid from book_checks where checked_at < clock_timestamp() - $1::interval order by checked_at limit $2
))
"""


async def last_ws_books(
    conn: AnyConnection, tickers: Sequence[str], since: int, until: int, batch_from: int
) -> dict[str, WsBook]:
    """Return each market's last book from the socket that was observed within [since, until], microseconds."""
    with map_store_errors():
        rows = await conn.fetch(_WS_BOOKS, tickers, since, until, batch_from)
    return {
        row["ticker"]: WsBook(
            row["ticker"], row["connection"], row["sid"], row["seq"], row["observed_at"],
            tuple((price, size) for price, size in row["yes"]),
            tuple((price, size) for price, size in row["no"]),
        )
        for row in rows
    }  # fmt: skip


async def last_openings(
    conn: AnyConnection, tickers: Sequence[str], sids: Iterable[Sid], limit: int
) -> list[Opening]:
    """Return for each of these markets and each of these sids the last opening, at most `limit` of them."""
    with map_store_errors():
        rows = await conn.fetch(_OPENINGS, tickers, ORDERBOOK_CHANNEL, limit, *_columns(sids))
    return [Opening(*row) for row in rows]


async def sid_openings(conn: AnyConnection, sids: Iterable[Sid]) -> dict[Sid, Opening]:
    """Return the last opening of all streams of each of these sids that has one."""
    with map_store_errors():
        rows = await conn.fetch(_SID_OPENINGS, *_columns(sids))
    return {(row["connection"], row["sid"]): Opening(*row) for row in rows}


async def last_closings(
    conn: AnyConnection, sids: Iterable[Sid], tickers: Sequence[str]
) -> dict[tuple[str | None, UUID, int], int]:
    """Return the seq of the last closing of each of these markets, and of all streams (None), on each of these sids."""
    with map_store_errors():
        rows = await conn.fetch(_CLOSINGS, *_columns(sids), tickers)
    return {(row["ticker"], row["connection"], row["sid"]): row["seq"] for row in rows}


async def read_islands(conn: AnyConnection, received_since: int, batch_from: int) -> list[Island]:
    """Return the joined ranges of all order-book sids, as far as they were committed since then (microseconds)."""
    with map_store_errors():
        rows = await conn.fetch(_ISLANDS, received_since, ORDERBOOK_CHANNEL, batch_from)
    return [Island(*row) for row in rows]


async def stream_deltas(
    conn: AnyConnection, streams: Sequence[Stream], per_market: int, batch_from: int
) -> tuple[dict[str, list[tuple[int, int, bool, int, int]]], bool]:
    """Return (seq, exchange_ts, side, price, size_delta) of each stream's deltas, ascending by seq, each seq once.

    Args:
        per_market: at most that many of one market.

    Returns:
        By market, and whether everything came: else the last market's are cut off and later ones missing.
    """
    if not streams:
        return {}, True
    columns = [list(column) for column in zip(*streams, strict=True)]
    with map_store_errors():
        since = min(stream.since_ts for stream in streams)
        rows = await conn.fetch(_DELTAS, *columns, since, per_market, DELTAS_MAX, batch_from)
    found: dict[str, list[tuple[int, int, bool, int, int]]] = {}
    for ticker, *values in rows:
        deltas = found.setdefault(ticker, [])
        # A batch may be stored twice.
        if not deltas or deltas[-1][0] != values[0]:
            deltas.append((values[0], values[1], values[2], values[3], values[4]))
    return found, len(rows) < DELTAS_MAX


async def add_checks(conn: AnyConnection, checks: Sequence[CheckRow]) -> None:
    """Write what comparisons said."""
    if checks:
        columns = [list(column) for column in zip(*checks, strict=True)]
        with map_store_errors():
            await conn.execute(_ADD, *columns)


async def forget_checks(conn: AnyConnection, keep_s: float) -> None:
    """Delete old rows; a bounded number, the next turn goes on."""
    with map_store_errors():
        await conn.execute(_FORGET, timedelta(seconds=keep_s), FORGET_MAX)


def _columns(sids: Iterable[Sid]) -> tuple[list[UUID], list[int]]:
    listed = list(sids)
    return [connection for connection, _ in listed], [sid for _, sid in listed]
