"""Rows of `completeness`, and the claims by which they are judged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, LiteralString, NamedTuple

from libs.marketdata.listening import Span, union
from libs.store.merge_records import record_events
from libs.store.merge_transaction import EventRow
from libs.store.pool import Connection, map_store_errors

STATEMENT_S_MAX: Final = 10.0
"""Seconds a question may take; a minute whose claims cannot be read in that time is not judged."""

_ADMITTED: LiteralString = (
    "SELECT zone, gatherer FROM gatherers WHERE status = 'ok' ORDER BY gatherer"
)
_LAST: LiteralString = """
SELECT DISTINCT ON (table_name) table_name, facts, by_all FROM completeness ORDER BY table_name, minute DESC
"""
_CLAIMS: LiteralString = """
SELECT a.ticker, l.gatherer, l.from_ts, l.to_ts
  FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS a (ticker, from_ts, to_ts)
 CROSS JOIN LATERAL listening_of(a.ticker, $4, a.from_ts, a.to_ts) l
"""
_WRITE: LiteralString = """
INSERT INTO completeness (minute, table_name, gatherers, facts, by_all, unchecked)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""


class CompletenessRow(NamedTuple):
    """Of one table and minute (its first microsecond): facts these gatherers should all have delivered, and did.

    unchecked: facts some of them lacks whose claims were not looked up, which are in neither number.
    """

    minute: int
    table_name: str
    gatherers: tuple[int, ...]
    facts: int
    by_all: int
    unchecked: int


Asked = Mapping[str | None, Span]
"""Ticker (None: of the whole channel) to the span in question."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What gatherers claim of the tickers that were asked for, joined; up to the transaction merge_no."""

    spans: Mapping[tuple[str | None, int], list[Span]]
    merge_no: int


async def read_admitted(conn: Connection) -> dict[str, int]:
    """Return the number of the gatherer that is merged for each zone. Raises StoreUnavailable."""
    with map_store_errors():
        return {row["zone"]: row["gatherer"] for row in await conn.fetch(_ADMITTED)}


async def read_last(conn: Connection) -> dict[str, tuple[int, int]]:
    """Return facts and by_all of the newest row of each table. Raises StoreUnavailable."""
    with map_store_errors():
        return {row["table_name"]: (row["facts"], row["by_all"]) for row in await conn.fetch(_LAST)}


async def read_claims(conn: Connection, channel: str, asked: Asked) -> Claimed:
    """Read what is claimed of these spans, all of one moment.

    Raises:
        StoreUnavailable: production is away, or the question took too long.
    """
    with map_store_errors():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(f"SET LOCAL statement_timeout = {round(STATEMENT_S_MAX * 1000)}")
            starts, ends = ([span[at] for span in asked.values()] for at in (0, 1))
            rows = await conn.fetch(_CLAIMS, list(asked), starts, ends, channel)
            merge_no = await conn.fetchval("SELECT merge_no FROM writer_lease")
    found: dict[tuple[str | None, int], list[Span]] = {}
    for ticker, gatherer, start, end in rows:
        found.setdefault((ticker, gatherer), []).append((start, end))
    return Claimed({key: union(spans) for key, spans in found.items()}, merge_no)


async def write_completeness(
    conn: Connection, rows: Iterable[CompletenessRow], events: Iterable[EventRow]
) -> None:
    """Record judgements and what changed with them, all or nothing. Raises StoreUnavailable."""
    with map_store_errors():
        async with conn.transaction():
            await conn.executemany(_WRITE, [tuple(row) for row in rows])
            await record_events(conn, list(events))
