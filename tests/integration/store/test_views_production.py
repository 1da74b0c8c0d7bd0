"""Views of production: lifecycle facts, the catalogue, coverage and asks."""

import json
from uuid import UUID

from libs.store.pool import AnyConnection, Target, connect

SECOND = 1_000_000
START = 1_795_262_400_000_000


async def _observe(
    conn: AnyConnection,
    stream: int,
    at_s: float,
    seq: int,
    event_type: str = "deactivated",
    body: str = "{}",
) -> None:
    await conn.execute(
        "INSERT INTO market_lifecycle (observed_at, received_at, content_hash, seq, sid, observed_is_sent, connection,"
        " message_type, event_type, ticker, body, gatherer, merge_no)"
        " VALUES ($1, $1, hashtext($2), $3, 1, true, $4, 'market_lifecycle_v2', $5, 'M', $2, 1, 1)",
        START + int(at_s * SECOND), body, seq, UUID(int=stream), event_type,
    )  # fmt: skip


async def _facts(conn: AnyConnection) -> list[tuple[str, float]]:
    rows = await conn.fetch(
        "SELECT event_type, observed_at FROM market_lifecycle_facts ORDER BY observed_at, event_type"
    )
    return [(row["event_type"], (row["observed_at"] - START) / SECOND) for row in rows]


async def test_observations_of_different_streams_are_one_fact(production_db: Target) -> None:
    """Equal observations of three streams within 10 s are one fact, at the time of the first."""
    async with connect(production_db) as conn:
        for stream, at in ((1, 0.5), (2, 0.2), (3, 9.9)):
            await _observe(conn, stream, at, 7)
        assert await _facts(conn) == [("deactivated", 0.2)]


async def test_two_observations_of_one_stream_are_two_facts(production_db: Target) -> None:
    """Deactivated, activated, deactivated, activated with equal content on two streams are four facts."""
    async with connect(production_db) as conn:
        for stream, lag in ((1, 0.0), (2, 0.3)):
            for seq, event in enumerate(("deactivated", "activated", "deactivated", "activated")):
                await _observe(conn, stream, seq + lag, seq, event)
        assert await _facts(conn) == [
            ("deactivated", 0.0), ("activated", 1.0), ("deactivated", 2.0), ("activated", 3.0),
        ]  # fmt: skip


async def test_a_stream_that_came_late_joins_the_fact_of_its_time(production_db: Target) -> None:
    """A long series of equal facts, the halves heard by different streams: every one counts once."""
    async with connect(production_db) as conn:
        for number in range(12):
            if number < 8:
                await _observe(conn, 1, 5.0 * number, number)
            if number >= 4:
                await _observe(conn, 2, 5.0 * number + 0.1, number)
        assert [at for _, at in await _facts(conn)] == [
            *(5.0 * n for n in range(8)),
            40.1,
            45.1,
            50.1,
            55.1,
        ]


async def test_a_late_stream_adds_nothing(production_db: Target) -> None:
    """A stream that lags by more than the facts' distance still sees the same two facts."""
    async with connect(production_db) as conn:
        for stream, at in ((1, 0), (1, 1), (2, 3), (2, 4)):
            await _observe(conn, stream, at, at)
        assert len(await _facts(conn)) == 2


async def test_ten_seconds_apart_are_two_facts(production_db: Target) -> None:
    """Equal observations of two streams 10 s apart or more are different facts, and other content always is."""
    async with connect(production_db) as conn:
        await _observe(conn, 1, 0, 1)
        await _observe(conn, 2, 10, 1)
        await _observe(conn, 3, 0.5, 1, body='{"a": 1}')
        assert len(await _facts(conn)) == 3


async def test_catalogue_shows_the_newest_version(production_db: Target) -> None:
    """Each of series, events and markets shows one row per ticker, the newest, with extracted columns."""
    versions = (
        (10, "market", "M", {"event_ticker": "E", "status": "active", "yes_sub_title": "old"}),
        (20, "market", "M", {"event_ticker": "E", "status": "closed", "yes_sub_title": "new"}),
        (15, "market", "N", {"event_ticker": "E", "status": "active"}),
        (10, "event", "E", {"series_ticker": "S", "title": "An event"}),
        (10, "series", "S", {"title": "A series", "category": "Weather"}),
    )
    async with connect(production_db) as conn:
        for number, (at, level, ticker, body) in enumerate(versions):
            await conn.execute(
                "INSERT INTO market_versions VALUES ($1, $1, $2, $3, $4, $5, 1, 1)",
                at, number, level, ticker, json.dumps(body),
            )  # fmt: skip
        markets = await conn.fetch(
            "SELECT ticker, event_ticker, status, yes_sub_title FROM markets ORDER BY ticker"
        )
        assert [tuple(row) for row in markets] == [
            ("M", "E", "closed", "new"),
            ("N", "E", "active", None),
        ]
        events = await conn.fetch("SELECT ticker, series_ticker, title FROM events")
        assert [tuple(row) for row in events] == [("E", "S", "An event")]
        series = await conn.fetch("SELECT ticker, title, category FROM series")
        assert [tuple(row) for row in series] == [("S", "A series", "Weather")]


async def test_coverage_increments_are_summed(production_db: Target) -> None:
    """Increments of one table, minute and set of gatherers add up; late copies are of facts counted already, and stand beside."""
    async with connect(production_db) as conn:
        await conn.executemany(
            "INSERT INTO coverage VALUES ($1, 'trades', 5, $2, $3, $4)",
            [
                (1, [1, 2], False, 10),
                (2, [1, 2], False, 5),
                (3, [1, 2], True, 1),
                (3, [1], False, 2),
            ],
        )
        rows = await conn.fetch("SELECT * FROM coverage_by_minute ORDER BY gatherers")
        assert [tuple(row) for row in rows] == [
            ("trades", 5, [1], 2, 0),
            ("trades", 5, [1, 2], 15, 1),
        ]


async def test_asks_mirror_the_other_side_s_bids(production_db: Target) -> None:
    """A no bid at p is a yes ask at 1 - p of the same size, ascending; empty and absent ladders stay so."""
    async with connect(production_db) as conn:
        await conn.executemany(
            "INSERT INTO orderbook_snapshots (observed_at, received_at, content_hash, observed_is_sent, is_first,"
            " source, ticker, yes, no, gatherer, merge_no) VALUES ($1, $1, 1, true, true, 'ws', 'M', $2, $3, 1, 1)",
            [(START, [[40_000, 100], [45_000, 7]], [[30_000, 5], [50_000, 9]]), (START + 1, [], []),
             (START + 2, None, None)],
        )  # fmt: skip
        rows = await conn.fetch(
            "SELECT yes_asks, no_asks FROM orderbook_snapshots_asks ORDER BY observed_at"
        )
        assert [tuple(row) for row in rows] == [
            ([[50_000, 9], [70_000, 5]], [[55_000, 7], [60_000, 100]]), ([], []), (None, None),
        ]  # fmt: skip
