"""What the zone's database holds of the markets whose books are to be compared: bases, proofs of hearing, deltas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from libs.marketdata.listening import Sid
from libs.marketdata.units import SECOND
from libs.store.batch_search import first_batch_since
from libs.store.book_checks import (
    Island,
    Opening,
    WsBook,
    last_closings,
    last_openings,
    last_ws_books,
    read_islands,
    sid_openings,
    stream_deltas,
)
from libs.store.pages import PLAN_BY_NUMBER
from libs.store.pool import AnyConnection
from services.poller.agreement import StreamDelta
from services.poller.streams import (
    Chosen,
    Heard,
    Look,
    Patience,
    by_sid,
    from_rest,
    from_socket,
    reaches,
)

OPENINGS_MAX: Final = 10_000
RANGES_BEFORE: Final = 90 * SECOND
"""Frames committed this long before the earliest base are looked at too, microseconds: a sid may be silent that long."""
EARLIER_MAX: Final = 7_200 * SECOND
"""An earlier answer that is older is no base, microseconds."""

Pair = tuple[Look, Look | None]
"""A market's answer, and that of an earlier round."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """For each market its stream and base, if it has any, and the stream's deltas.

    cut_from: the first market whose deltas did not all come; None: all came.
    """

    chosen: dict[str, Chosen]
    deltas: dict[str, list[StreamDelta]]
    cut_from: str | None


async def read_evidence(
    conn: AnyConnection, due: Sequence[Pair], patience: Patience, lookback: int, per_market: int
) -> Evidence:
    """Read what these answers are to be compared with.

    Args:
        conn: not inside a transaction.
        due: at most one look of each market.
        lookback: how old a book of the socket may be as a base, microseconds.
        per_market: deltas of one market that are read at most.

    Raises:
        StoreUnavailable: the database is away.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await conn.execute(PLAN_BY_NUMBER)
        first = min(patience.window(look)[0] for look, _ in due)
        usable = {
            look.ticker: earlier
            for look, earlier in due
            if earlier is not None and earlier.received_at >= first - EARLIER_MAX
        }
        starts = [patience.window(look)[0] for look in usable.values()]
        oldest = min([first - lookback, *starts]) - RANGES_BEFORE
        batch_from = await first_batch_since(conn, oldest)
        tickers = [look.ticker for look, _ in due]
        books = await last_ws_books(conn, tickers, first - lookback, first, batch_from)
        islands = await read_islands(conn, oldest, batch_from)
        # Of connections that are gone a market may have many: they reach no window.
        until = min(patience.window(look)[1] for look, _ in due)
        sids = {(i.connection, i.sid) for i in islands if reaches(i, until)}
        openings = await last_openings(conn, list(usable), sids, OPENINGS_MAX) if usable else []
        heard = await _heard(conn, list(books.values()), openings, islands)
        chosen = _choose(due, books, openings, usable, patience, heard)
        streams = [entry.stream for entry in chosen.values()]
        found, is_whole = await stream_deltas(conn, streams, per_market, batch_from)
    deltas = {ticker: [StreamDelta(*d) for d in rows] for ticker, rows in found.items()}
    return Evidence(chosen, deltas, None if is_whole else max(deltas, default=""))


async def _heard(
    conn: AnyConnection,
    books: Sequence[WsBook],
    openings: Sequence[Opening],
    islands: Sequence[Island],
) -> Heard:
    sids: set[Sid] = {(book.connection, book.sid) for book in books}
    sids |= {(opening.connection, opening.sid) for opening in openings}
    if not sids:
        return Heard({}, {}, {})
    tickers = {book.ticker for book in books} | {o.ticker for o in openings if o.ticker}
    return Heard(
        by_sid(islands),
        await sid_openings(conn, sids),
        await last_closings(conn, sids, sorted(tickers)),
    )


def _choose(
    due: Sequence[Pair],
    books: dict[str, WsBook],
    openings: Sequence[Opening],
    usable: dict[str, Look],
    patience: Patience,
    heard: Heard,
) -> dict[str, Chosen]:
    """Take a market's book from the socket as its base, else the earlier answer with a stream that was heard since."""
    windows = {look.ticker: patience.window(look) for look, _ in due}
    chosen: dict[str, Chosen] = {}
    for ticker, book in books.items():
        found = from_socket(book, windows[ticker], heard)
        if found is not None:
            chosen[ticker] = found
    for opening in openings:
        ticker = opening.ticker or ""
        if ticker in chosen:
            continue
        earlier = usable[ticker]
        found = from_rest(opening, earlier, patience.window(earlier), windows[ticker], heard)
        if found is not None:
            chosen[ticker] = found
    return chosen
