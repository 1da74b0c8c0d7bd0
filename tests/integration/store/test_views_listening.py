"""The views of listening say what libs/marketdata/listening.py says, and gaps are what they leave."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libs.marketdata.listening import claims, holes
from libs.marketdata.rows import ListenClosedRow, ListenOpenedRow, ListenRangeRow
from libs.store.pool import AnyConnection, Target, connect

SECOND = 1_000_000
CONNECTIONS = (UUID(int=1), UUID(int=2))
CHANNELS = {1: "orderbook_delta", 2: "trade"}
START = 1_795_262_400_000_000

_sids = st.sampled_from([(c, sid) for c in CONNECTIONS for sid in CHANNELS])
_seqs = st.integers(0, 14)
_margins = st.sampled_from([SECOND, SECOND, 5 * SECOND])


def _sent(seq: int, jitter: int) -> int:
    return START + seq * 2 * SECOND + jitter


@st.composite
def _ranges(draw: st.DrawFn) -> ListenRangeRow:
    (connection, sid), first = draw(_sids), draw(_seqs)
    last = first + draw(st.integers(0, 6))
    jitter = draw(st.integers(0, 1999))
    return ListenRangeRow(
        START, first, last, _sent(first, 0), _sent(last, jitter), draw(_margins), sid, 1, connection, CHANNELS[sid]
    )  # fmt: skip


def _ticker(draw: st.DrawFn, sid: int) -> str | None:
    return draw(st.sampled_from(["A", "B", None])) if sid == 1 else None


@st.composite
def _openings(draw: st.DrawFn) -> ListenOpenedRow:
    (connection, sid), seq = draw(_sids), draw(_seqs)
    return ListenOpenedRow(
        START, seq, _sent(seq, draw(st.integers(0, 1999))), draw(_margins), draw(st.integers(1, 3)), sid, 1,
        connection, CHANNELS[sid], "slot", _ticker(draw, sid),
    )  # fmt: skip


@st.composite
def _closings(draw: st.DrawFn) -> ListenClosedRow:
    (connection, sid), seq = draw(_sids), draw(_seqs)
    return ListenClosedRow(
        START, seq, _sent(seq, draw(st.integers(0, 1999))), draw(st.integers(1, 3)), sid, 1, connection,
        CHANNELS[sid], "seq", _ticker(draw, sid),
    )  # fmt: skip


async def _insert(
    conn: AnyConnection, table: str, rows: Sequence[tuple[Any, ...]], extra: dict[str, Any]
) -> None:
    if rows:
        names = [*extra, *type(rows[0])._fields]  # type: ignore[attr-defined]
        numbered = [
            (*(next(v) if hasattr(v, "__next__") else v for v in extra.values()), *row)
            for row in rows
        ]
        await conn.copy_records_to_table(table, records=numbered, columns=names)


async def _write(
    conn: AnyConnection,
    ranges: Sequence[ListenRangeRow],
    opened: Sequence[ListenOpenedRow],
    closed: Sequence[ListenClosedRow],
    gatherer: int | None = None,
) -> None:
    for table, rows in (
        ("listen_ranges", ranges),
        ("listen_opened", opened),
        ("listen_closed", closed),
    ):
        if gatherer is None:
            await _insert(conn, table, rows, {"batch_id": 1})
        else:
            extra = {"gatherer": gatherer, "merge_no": 1, "lane": uuid4(), "batch_no": 1}
            numbered = [row._replace(row_no=n) for n, row in enumerate(rows)]  # type: ignore[attr-defined]
            await _insert(conn, table, numbered, extra)


def _range(
    seq_from: int, seq_to: int, sent_to: int, margin: int = SECOND, sid: int = 1
) -> ListenRangeRow:
    return ListenRangeRow(
        START, seq_from, seq_to, START, sent_to, margin, sid, 1, CONNECTIONS[0], CHANNELS[sid]
    )


def _open(
    seq: int, sent_at: int, ticker: str | None, sid: int = 1, stream: int = 1
) -> ListenOpenedRow:
    return ListenOpenedRow(
        START, seq, sent_at, SECOND, stream, sid, 1, CONNECTIONS[0], CHANNELS[sid], "slot", ticker
    )


def _close(
    seq: int, sent_at: int, ticker: str | None, sid: int = 1, stream: int = 1
) -> ListenClosedRow:
    return ListenClosedRow(
        START, seq, sent_at, stream, sid, 1, CONNECTIONS[0], CHANNELS[sid], "seq", ticker
    )


GAP_IN_THE_MIDDLE = (
    [_range(0, 3, START + 9 * SECOND), _range(5, 9, START + 30 * SECOND)],
    [_open(1, START, "A"), _open(5, START + 12 * SECOND, None), _open(6, START + 13 * SECOND, "B")],
    [_close(3, START + 9 * SECOND, None), _close(8, START + 28 * SECOND, "A")],
)


@given(
    rows=st.tuples(
        st.lists(_ranges(), max_size=14),
        st.lists(_openings(), max_size=8),
        st.lists(_closings(), max_size=6),
    )
)
@example(rows=GAP_IN_THE_MIDDLE)
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_view_equals_the_pure_claims(gatherer_db: Target, rows: Any) -> None:
    """For any ranges, openings and closings the view's claims are exactly those of the pure function."""

    async def compare() -> None:
        async with connect(gatherer_db) as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                await _write(conn, *rows)
                found = await conn.fetch(
                    "SELECT connection, sid, channel, ticker, from_ts, to_ts FROM listening"
                )
                gaps = await conn.fetch(
                    "SELECT channel, ticker, from_ts, to_ts FROM listening_gaps"
                )
            finally:
                await transaction.rollback()
        expected = claims(*rows)
        assert {tuple(row) for row in found} == set(expected)
        assert len(found) == len(expected)
        assert {tuple(row) for row in gaps} == _gaps(expected)

    asyncio.run(compare())


def _gaps(expected: Any) -> set[tuple[Any, ...]]:
    heard = defaultdict(list)
    for claim in expected:
        heard[claim.channel, claim.ticker].append((claim.from_ts, claim.to_ts))
    return {
        (*key, *hole)
        for key, spans in heard.items()
        for hole in holes(spans, min(a for a, _ in spans), max(b for _, b in spans))
    }


async def test_a_seq_gap_is_carried_over_and_left_uncovered(gatherer_db: Target) -> None:
    """A stream goes on after the opening of all streams; between closing and opening nothing is claimed."""
    async with connect(gatherer_db) as conn:
        await _write(conn, *GAP_IN_THE_MIDDLE)
        found = await conn.fetch(
            "SELECT from_ts, to_ts FROM listening WHERE ticker = 'A' ORDER BY from_ts"
        )
        assert [tuple((at - START) // SECOND for at in row) for row in found] == [(1, 8), (13, 27)]
        gaps = await conn.fetch("SELECT * FROM listening_gaps")
        assert [tuple(row) for row in gaps] == [
            ("orderbook_delta", "A", START + 8 * SECOND, START + 13 * SECOND)
        ]


async def test_production_gap_is_where_no_gatherer_listened(production_db: Target) -> None:
    """What one gatherer missed another may have heard: only the rest is a gap of production."""
    second = CONNECTIONS[1]
    async with connect(production_db) as conn:
        ranges, opened, closed = GAP_IN_THE_MIDDLE
        await _write(conn, ranges, opened, closed, gatherer=1)
        await _write(
            conn,
            [_range(0, 9, START + 12 * SECOND)._replace(connection=second)],
            [_open(1, START, "A")._replace(connection=second)],
            [],
            gatherer=2,
        )
        listening = await conn.fetch(
            "SELECT gatherer, from_ts, to_ts FROM listening WHERE ticker = 'A'"
        )
        assert {(g, (a - START) // SECOND, (b - START) // SECOND) for g, a, b in listening} == {
            (1, 1, 8), (1, 13, 27), (2, 1, 11),
        }  # fmt: skip
        own = await conn.fetch("SELECT * FROM listening_gaps")
        assert [tuple(row) for row in own] == [
            (1, "orderbook_delta", "A", START + 8 * SECOND, START + 13 * SECOND)
        ]
        gaps = await conn.fetch("SELECT * FROM production_gaps")
        assert [tuple(row) for row in gaps] == [
            ("orderbook_delta", "A", START + 11 * SECOND, START + 13 * SECOND)
        ]
