"""Listening of one market: what the view says, found by index; with ranges joined to runs and without."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libs.marketdata.listening import claims, holes
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.marketdata.tables import LISTEN_RANGES
from libs.marketdata.units import DAY, HOUR, SECOND
from libs.store.listen_runs import forget_runs, join_ranges
from libs.store.loading import load_rows
from libs.store.pool import Connection, Target, connect
from tests.support.postgres import plain_only

START = 1_795_262_400_000_000
CONNECTIONS = (UUID(int=1), UUID(int=2))
CHANNELS = {1: "orderbook_delta", 2: "trade"}
ASKED = (("A", "orderbook_delta"), ("B", "orderbook_delta"), ("A", "trade"), (None, "trade"))

_sids = st.sampled_from([(c, sid) for c in CONNECTIONS for sid in CHANNELS])
_seqs = st.integers(0, 14)
_jitter = st.integers(0, 1999)
_margins = st.sampled_from([SECOND, SECOND, 5 * SECOND])


def _sent(seq: int, jitter: int = 0) -> int:
    return START + seq * 2 * SECOND + jitter


def _range(
    first: int, last: int, sid: int = 1, connection: UUID = CONNECTIONS[0], margin: int = SECOND, jitter: int = 0
) -> ListenRangeRow:  # fmt: skip
    return ListenRangeRow(
        _sent(last), first, last, _sent(first), _sent(last, jitter), margin, sid, 1, connection, CHANNELS[sid]
    )  # fmt: skip


def _opened(
    seq: int, ticker: str | None, sid: int = 1, connection: UUID = CONNECTIONS[0], margin: int = SECOND, stream: int = 1
) -> ListenOpenedRow:  # fmt: skip
    return ListenOpenedRow(
        _sent(seq), seq, _sent(seq), margin, stream, sid, 1, connection, CHANNELS[sid], "slot", ticker
    )  # fmt: skip


def _closed(
    seq: int, ticker: str | None, sid: int = 1, connection: UUID = CONNECTIONS[0], jitter: int = 0, stream: int = 1
) -> ListenClosedRow:  # fmt: skip
    return ListenClosedRow(
        _sent(seq), seq, _sent(seq, jitter), stream, sid, 1, connection, CHANNELS[sid], "seq", ticker
    )  # fmt: skip


def _ticker(draw: st.DrawFn, sid: int) -> str | None:
    return draw(st.sampled_from(["A", "B", None])) if sid == 1 else None


@st.composite
def _ranges(draw: st.DrawFn) -> ListenRangeRow:
    (connection, sid), first = draw(_sids), draw(_seqs)
    last = first + draw(st.integers(0, 6))
    return _range(first, last, sid, connection, draw(_margins), draw(_jitter))


@st.composite
def _openings(draw: st.DrawFn) -> ListenOpenedRow:
    connection, sid = draw(_sids)
    streams, margin = draw(st.integers(1, 3)), draw(_margins)
    return _opened(draw(_seqs), _ticker(draw, sid), sid, connection, margin, streams)


@st.composite
def _closings(draw: st.DrawFn) -> ListenClosedRow:
    (connection, sid), stream = draw(_sids), draw(st.integers(1, 3))
    return _closed(draw(_seqs), _ticker(draw, sid), sid, connection, draw(_jitter), stream)


async def _write(conn: Connection, rows: Any, merge_nos: Iterator[int]) -> None:
    """Insert claims of gatherer 1, each row by a merge of its own."""
    for table, found in zip(("listen_ranges", "listen_opened", "listen_closed"), rows, strict=True):
        for number, row in enumerate(found):
            named = dict(zip(row._fields, row, strict=True)) | {"row_no": number}
            named |= {
                "gatherer": 1,
                "merge_no": next(merge_nos),
                "lane": uuid4(),
                "batch_no": 1,
            }
            await conn.copy_records_to_table(
                table, records=[tuple(named.values())], columns=list(named)
            )


GAP_IN_THE_MIDDLE = (
    [_range(0, 3), _range(5, 9), _range(4, 4, 2), _range(5, 6, 2)],
    [_opened(1, "A"), _opened(5, None), _opened(6, "B"), _opened(4, None, 2)],
    [_closed(3, None), _closed(8, "A")],
)


@given(
    rows=st.tuples(
        st.lists(_ranges(), max_size=14),
        st.lists(_openings(), max_size=8),
        st.lists(_closings(), max_size=6),
    ),
    joined_to=st.integers(0, 14),
    span=st.tuples(st.integers(-2, 30), st.integers(1, 20)),
)
@example(rows=GAP_IN_THE_MIDDLE, joined_to=2, span=(0, 30))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_market_is_answered_as_the_view_and_the_pure_claims_do(
    production_db: Target, rows: Any, joined_to: int, span: tuple[int, int]
) -> None:
    """For any claims, any of them joined to runs: the overlapping rows of the view, and their holes in the span."""
    start = START + span[0] * SECOND
    end = start + span[1] * SECOND

    async def compare() -> None:
        async with connect(production_db) as conn:
            attempt = conn.transaction()
            await attempt.start()
            try:
                await _write(conn, rows, iter(range(1, 100)))
                if joined_to:
                    await conn.execute("UPDATE writer_lease SET merge_no = $1", joined_to)
                    assert await join_ranges(conn, merges_min=1) == 0
                for ticker, channel in ASKED:
                    await _compare(conn, ticker, channel)
            finally:
                await attempt.rollback()

    async def _compare(conn: Connection, ticker: str | None, channel: str) -> None:
        asked = (ticker, channel, start, end)
        found = await conn.fetch("SELECT * FROM listening_of($1, $2, $3, $4)", *asked)
        seen = await conn.fetch(
            "SELECT * FROM listening WHERE channel = $2 AND (ticker = $1 OR ticker IS NULL)"
            " AND from_ts < $4 AND to_ts > $3",
            *asked,
        )
        assert sorted(map(tuple, found)) == sorted(map(tuple, seen))
        pure = [
            claim
            for claim in claims(*rows)
            if claim.channel == channel and claim.ticker in {ticker, None}
            if claim.from_ts < end and claim.to_ts > start
        ]
        assert {tuple(row)[1:] for row in found} == set(pure)
        unheard = await conn.fetch("SELECT * FROM unheard_of($1, $2, $3, $4)", *asked)
        assert [tuple(row) for row in unheard] == holes(
            [(claim.from_ts, claim.to_ts) for claim in pure], start, end
        )

    asyncio.run(compare())


async def test_runs_are_made_of_what_is_merged_and_only_once(production_db: Target) -> None:
    """Two touching ranges are one run, a hole makes two; what the writer has not committed yet waits."""
    async with connect(production_db) as conn:
        rows: Any = (
            [_range(1, 3), _range(4, 6, margin=2 * SECOND), _range(8, 9), _range(7, 7)],
            [],
            [],
        )
        await _write(conn, rows, iter([1, 2, 3, 4]))
        await conn.execute("UPDATE writer_lease SET merge_no = 3")
        assert await join_ranges(conn, merges_min=4) == 0
        assert await conn.fetchval("SELECT count(*) FROM listen_runs") == 0
        for _ in range(2):
            assert await join_ranges(conn, merges_min=0) == 0
        runs = await conn.fetch(
            "SELECT seq_from, seq_to, sent_to, margin, merge_to FROM listen_runs ORDER BY seq_from"
        )
        assert [tuple(run) for run in runs] == [
            (1, 6, _sent(6), 2 * SECOND, 2),
            (8, 9, _sent(9), SECOND, 3),
        ]


def _plan_nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _plan_nodes(child)


LONG_AGO = 11_000 * DAY
"""Far from the partitions a new database is made with."""
DAYS = 9
TABLES = {
    "listen_opened": ("stream, slot, ticker, seq, sent_at, margin", "1, 's', 'M' || n % 500, 1, at, 1000000"),
    "listen_ranges": ("seq_from, seq_to, sent_from, sent_to, margin", "n, n, at, at, 1000000"),
    "listen_closed": ("stream, reason, ticker, seq, sent_at", "1, 'x', 'M' || n % 500, n, at"),
}  # fmt: skip
"""Columns besides those of every claim, and their values for the n-th of many."""


async def _fill(conn: Connection) -> int:
    """Write nine days of claims of 90 connections, a partition a day; return the first moment."""
    first = LONG_AGO
    for table, (columns, values) in TABLES.items():
        for day in range(DAYS):
            await conn.execute(
                f"CREATE TABLE {table}_day{day} PARTITION OF {table}"
                f" FOR VALUES FROM ({first + day * DAY}) TO ({first + day * DAY + DAY})"
            )
        await conn.execute(
            f"INSERT INTO {table} (received_at, sid, row_no, connection, channel, lane, batch_no, gatherer, merge_no,"
            f" {columns}) SELECT at, 1, n, md5((n % 90)::text)::uuid, 'orderbook_delta', gen_random_uuid(), 1, 1, n,"
            f" {values} FROM (SELECT n, {first} + n * {DAYS * DAY // 18_001} AS at FROM generate_series(1, 18000::bigint) n) rows"
        )
        await conn.execute(f"ANALYZE {table}")
    return first


@plain_only
async def test_one_market_reads_its_own_rows_by_index_and_no_partition_after_the_span(
    production_db: Target,
) -> None:
    """Nine days, a span in the fourth: later openings are in partitions nobody opens, and nothing is read whole."""
    async with connect(production_db) as conn:
        first = await _fill(conn)
        await conn.execute("UPDATE writer_lease SET merge_no = 17900")
        while await join_ranges(conn, merges_min=1):
            pass
        await conn.execute("ANALYZE listen_runs")
        (document,) = await conn.fetchrow(
            "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM listening_of($1, $2, $3, $4)",
            "M7", "orderbook_delta", first + 3 * DAY, first + 3 * DAY + HOUR,
        ) or ("",)  # fmt: skip
    scans = [n for n in _plan_nodes(json.loads(document)[0]["Plan"]) if "Relation Name" in n]
    claims_read = [
        scan
        for scan in scans
        if scan["Actual Loops"] and scan["Relation Name"] != "listen_runs_progress"
    ]
    whole = {s["Relation Name"] for s in claims_read if s["Node Type"] == "Seq Scan"}
    assert all("_day" not in name and name != "listen_runs" for name in whole), "not empty"
    opened = {
        s["Relation Name"] for s in claims_read if s["Relation Name"].startswith("listen_opened_d")
    }
    assert opened - {"listen_opened_default"} == {f"listen_opened_day{day}" for day in range(5)}
    assert max(scan["Actual Rows"] for scan in claims_read) <= 18_000 // 90


async def test_claims_loaded_from_the_archive_are_answered_too(production_db: Target) -> None:
    """They bear numbers of merges that were joined long ago, and are found all the same."""
    async with connect(production_db) as conn:
        await _write(conn, ([], [_opened(1, "A")], []), iter([9]))
        await conn.execute("UPDATE listen_runs_progress SET merge_no = 9")
        rows = [(*row._replace(row_no=n), uuid4(), 1, 1, 5) for n, row in enumerate((_range(0, 3), _range(4, 9)))]  # fmt: skip
        for _ in range(2):
            async with conn.transaction():
                await load_rows(conn, LISTEN_RANGES, rows)
        found = await conn.fetch(
            "SELECT from_ts, to_ts FROM listening_of('A', 'orderbook_delta', $1, $2)",
            START,
            START + HOUR,
        )
        assert [tuple(row) for row in found] == [(_sent(1) + SECOND, _sent(9) - SECOND)]


async def _heard(conn: Connection) -> list[tuple[Any, ...]]:
    rows = await conn.fetch(
        "SELECT connection, ticker, from_ts, to_ts FROM listening ORDER BY connection"
    )
    return [tuple(row) for row in rows]


async def test_a_connection_older_than_retention_is_heard_from_its_opening(
    production_db: Target,
) -> None:
    """Its first ranges are dropped, the view says the same; only a connection that ended before is forgotten."""
    old, young = CONNECTIONS
    ended = [_range(1, 2, connection=old)]
    lives = [_range(1, 3, connection=young), _range(4, 9, connection=young)]
    opened = [_opened(1, "A", connection=connection) for connection in CONNECTIONS]
    async with connect(production_db) as conn:
        await _write(conn, (ended + lives, opened, []), iter(range(1, 9)))
        before = await _heard(conn)
        assert [row[0] for row in before] == [young], (
            "a second and its margins are nothing for the other"
        )
        await conn.execute("UPDATE writer_lease SET merge_no = 3")
        assert await join_ranges(conn, merges_min=1) == 0
        await conn.execute("DELETE FROM listen_ranges WHERE merge_no <= 2")
        assert await _heard(conn) == before
        assert await forget_runs(conn) == 0, "nothing was dropped yet"
        mark = (
            "INSERT INTO retention_marks (table_name, dropped_before) VALUES ('listen_ranges', $1)"
        )
        await conn.execute(mark, _sent(4))
        asked = "INSERT INTO archive_reopenings (table_name, range_from, range_to, state) VALUES ('listen_ranges', 0, 1, $1)"
        await conn.execute(asked, "open")
        assert await forget_runs(conn) == 0, "somebody reads what is open again"
        await conn.execute("UPDATE archive_reopenings SET state = 'closed'")
        assert await forget_runs(conn) == 1
        assert await _heard(conn) == before
        assert (
            await conn.fetchval("SELECT count(*) FROM listen_runs WHERE connection = $1", old) == 0
        )
