"""What production has recorded of a span: claims, causes of gaps, facts by who delivered them, lags, completeness.

Questions about one market or a whole channel are answered by index. Order books of all markets together are read from
the view, which looks at every claim there is: for a production of a laptop's size, and refused beyond it.
"""

from typing import Final, LiteralString, NamedTuple
from uuid import UUID

from libs.store.errors import StoreRefused
from libs.store.pool import Connection, map_store_errors

STREAMS_MAX: Final = 200_000
"""Claims of all markets together that are looked at; more is a question for one market."""
ORDERBOOK: Final = "orderbook_delta"

_GATHERERS: LiteralString = "SELECT gatherer, zone, status FROM gatherers ORDER BY gatherer"
_ENDED: LiteralString = """
SELECT l.gatherer, l.connection, l.channel, l.ticker, l.from_ts, l.to_ts, ended.reason
  FROM ({claims}) l
  LEFT JOIN LATERAL (SELECT c.reason FROM listen_closed c
                      WHERE c.connection = l.connection AND c.sid = l.sid AND c.ticker IS NOT DISTINCT FROM l.ticker
                        AND c.sent_at BETWEEN l.to_ts AND l.to_ts + 60000000 ORDER BY c.sent_at LIMIT 1) ended ON true
 ORDER BY l.from_ts, l.to_ts, l.gatherer, l.connection, l.ticker
"""
_OF_ONE = _ENDED.format(claims="SELECT * FROM listening_of($1, $2, $3, $4)")
_OF_ALL = _ENDED.format(
    claims="SELECT * FROM listening WHERE channel = $1 AND from_ts < $3 AND to_ts > $2 LIMIT $4"
)
_CAUSES: LiteralString = """
SELECT gatherer, slot, ticker, reason, detail, from_ts, to_ts, rows_lost FROM gap_causes_of($1, $2, $3, $4)
 ORDER BY from_ts, to_ts, gatherer, slot, ticker
"""
_FACTS: LiteralString = """
SELECT table_name, minute, gatherers, facts, late_facts FROM coverage_by_minute
 WHERE minute > $1::bigint - 60000000 AND minute < $2 ORDER BY table_name, minute, gatherers
"""
_BUCKETS: LiteralString = """
SELECT gatherer, table_name, minute, lag_of_bucket(bucket) AS lag_s, sum(count)::bigint AS rows, max(lag_max) / 1e6::float8 AS max_s
  FROM merge_lags CROSS JOIN LATERAL unnest(buckets, counts) AS b (bucket, count)
 WHERE minute > $1::bigint - 60000000 AND minute < $2
 GROUP BY gatherer, table_name, minute, bucket ORDER BY gatherer, table_name, minute, bucket
"""
_COMPLETENESS: LiteralString = """
SELECT minute, table_name, facts, by_all, unchecked FROM completeness
 WHERE minute > $1::bigint - 60000000 AND minute < $2 ORDER BY minute, table_name
"""


class Gatherer(NamedTuple):
    """A gatherer that production knows."""

    gatherer: int
    zone: str
    status: str


class Claim(NamedTuple):
    """A gatherer heard everything of ticker (None: of the channel) in [from_ts, to_ts), microseconds.

    ended: why its stream was closed there; None where it was not, or nobody could say.
    """

    gatherer: int
    connection: UUID
    channel: str
    ticker: str | None
    from_ts: int
    to_ts: int
    ended: str | None = None


class Cause(NamedTuple):
    """Why a gatherer did not hear; times in microseconds, to_ts inclusive; rows_lost None: not known."""

    gatherer: int
    slot: str
    ticker: str | None
    reason: str
    detail: str
    from_ts: int
    to_ts: int
    rows_lost: int | None


class FactCount(NamedTuple):
    """Facts of a table and minute (its first microsecond) that exactly these gatherers delivered."""

    table_name: str
    minute: int
    gatherers: tuple[int, ...]
    facts: int
    late_facts: int


class LagCount(NamedTuple):
    """Rows of a gatherer, table and minute of receipt whose lag was about lag_s; max_s: the longest of that minute."""

    gatherer: int
    table_name: str
    minute: int
    lag_s: float
    rows: int
    max_s: float


class Judged(NamedTuple):
    """A minute's row of `completeness`."""

    minute: int
    table_name: str
    facts: int
    by_all: int
    unchecked: int


class SpanReader:
    """Reads what stands about [start, end), microseconds, over one connection. Every method raises StoreUnavailable."""

    def __init__(self, conn: Connection, start: int, end: int) -> None:
        self._conn = conn
        self._span = (start, end)

    async def gatherers(self) -> list[Gatherer]:
        """Every gatherer that was ever admitted."""
        with map_store_errors():
            return [Gatherer(*row) for row in await self._conn.fetch(_GATHERERS)]

    async def claims(self, channel: str, ticker: str | None) -> list[Claim]:
        """Who heard the channel; of the order books without a ticker: who heard which of all markets.

        Raises:
            StoreRefused: that are too many.
        """
        with map_store_errors():
            if channel == ORDERBOOK and ticker is None:
                rows = await self._conn.fetch(_OF_ALL, channel, *self._span, STREAMS_MAX + 1)
            else:
                rows = await self._conn.fetch(_OF_ONE, ticker, channel, *self._span)
        if len(rows) > STREAMS_MAX:
            raise StoreRefused(
                f"more than {STREAMS_MAX:,} claims of order books: ask for one market"
            )
        return [Claim(*row) for row in rows]

    async def causes(self, channel: str, ticker: str | None) -> list[Cause]:
        """The recorded causes that touch the span, ascending."""
        with map_store_errors():
            rows = await self._conn.fetch(_CAUSES, ticker, channel, *self._span)
        return [Cause(*row) for row in rows]

    async def facts(self) -> list[FactCount]:
        """Facts of every minute that begins in the span or lasts into it."""
        with map_store_errors():
            rows = await self._conn.fetch(_FACTS, *self._span)
        return [FactCount(name, minute, tuple(who), *counts) for name, minute, who, *counts in rows]

    async def lag_counts(self) -> list[LagCount]:
        """Lags as counts that add up; the view lag_by_minute gives their quantiles."""
        with map_store_errors():
            return [LagCount(*row) for row in await self._conn.fetch(_BUCKETS, *self._span)]

    async def completeness(self) -> list[Judged]:
        """The judged minutes."""
        with map_store_errors():
            return [Judged(*row) for row in await self._conn.fetch(_COMPLETENESS, *self._span)]
