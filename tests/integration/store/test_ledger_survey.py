"""What the ledger still holds on to: read once a round, exact again under a partition's lock, and cheap there."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from libs.marketdata.units import HOUR
from libs.store import ledger_survey
from libs.store.ledger_survey import survey_ledger
from libs.store.partition_plan import Partition
from libs.store.pool import AnyConnection, Target, connect

NOON = 1_900_000_800_000_000
DELTAS = Partition("orderbook_deltas", "orderbook_deltas_p", NOON, NOON + HOUR)


async def _batch(
    conn: AnyConnection, lane: UUID, batch_no: int, *times: tuple[str, int, int]
) -> None:
    tables, starts, ends = zip(*times, strict=True)
    await conn.execute(
        "INSERT INTO ingest_batches (lane, batch_no, schema_version, table_names, row_counts, row_hashes, times_from,"
        " times_to) VALUES ($1, $2, 1, $3, $4, $4::int[]::bigint[], $5, $6)",
        lane, batch_no, tables, [1] * len(tables), starts, ends,
    )  # fmt: skip


async def _release(conn: AnyConnection, lane: UUID, batch_no: int) -> None:
    await conn.execute(
        "INSERT INTO lane_releases VALUES ($1, $2, 1) ON CONFLICT (lane) DO UPDATE SET released_batch_no = $2",
        lane, batch_no,
    )  # fmt: skip


async def test_spans_of_all_tables_come_from_one_reading(gatherer_db: Target) -> None:
    """Unreleased batches stand against what they touch, also by one microsecond or from far away; released ones do not."""
    lane, other = uuid4(), uuid4()
    async with connect(gatherer_db) as conn:
        await _batch(
            conn, lane, 1, ("orderbook_deltas", NOON, NOON + 5), ("gaps", NOON - 5, NOON - 1)
        )
        await _batch(conn, other, 1, ("orderbook_deltas", NOON - 9 * HOUR, NOON))
        await _batch(conn, other, 2, ("orderbook_deltas", NOON + HOUR, 2**63 - 1))
        await _batch(conn, other, 3, ("orderbook_deltas", -(2**63), NOON - 1))
        survey = await survey_ledger(conn)
        assert survey.fault(DELTAS) == "2 batches are not released"
        assert survey.fault(Partition("gaps", "g", NOON, NOON + HOUR)) is None
        assert survey.fault(Partition("gaps", "g", NOON - HOUR, NOON)) is not None
        await _release(conn, lane, 1)
        await _release(conn, other, 1)
        survey = await survey_ledger(conn)
        assert survey.fault(DELTAS) is None
        assert survey.touched(DELTAS)
        assert survey.fault(Partition("orderbook_deltas", "o", NOON + HOUR, NOON + 2 * HOUR))


@pytest.mark.parametrize("is_known_lane", [True, False])
async def test_what_is_committed_after_the_reading_is_seen_under_the_lock(
    gatherer_db: Target, is_known_lane: bool
) -> None:
    """A batch of a known or a new lane that touches the partition keeps it; one that touches another does not."""
    lane = uuid4()
    async with connect(gatherer_db) as conn:
        await _batch(conn, lane, 1, ("orderbook_deltas", NOON, NOON))
        await _release(conn, lane, 1)
        survey = await survey_ledger(conn)
        assert await survey.late_fault(conn, DELTAS) is None
        later = lane if is_known_lane else uuid4()
        await _batch(conn, later, 2, ("orderbook_deltas", NOON + HOUR, NOON + 2 * HOUR))
        await _batch(conn, later, 3, ("trades", NOON, NOON))
        assert await survey.late_fault(conn, DELTAS) is None
        await _batch(conn, later, 4, ("trades", NOON, NOON), ("orderbook_deltas", NOON, NOON))
        await _release(conn, later, 4)
        assert await survey.late_fault(conn, DELTAS) is not None


async def test_exactly_the_batches_of_the_partition_are_marked(gatherer_db: Target) -> None:
    """A neighbour between them in batch_id stays unmarked; a mark is never moved."""
    lane = uuid4()
    async with connect(gatherer_db) as conn:
        await _batch(conn, lane, 1, ("orderbook_deltas", NOON, NOON))
        await _batch(conn, lane, 2, ("orderbook_deltas", NOON - HOUR, NOON - 1))
        await _batch(conn, lane, 3, ("orderbook_deltas", NOON - 1, NOON))
        await _release(conn, lane, 3)
        survey = await survey_ledger(conn)
        await survey.mark_dropped(conn, DELTAS)
        marks = "SELECT batch_no, dropped_at FROM ingest_batches WHERE dropped_at IS NOT NULL ORDER BY 1"
        first = await conn.fetch(marks)
        assert [row["batch_no"] for row in first] == [1, 3]
        await survey.mark_dropped(conn, DELTAS)
        assert await conn.fetch(marks) == first


def _scans(plan: dict[str, Any]) -> set[str]:
    own = {plan["Node Type"]} if plan.get("Relation Name") == "ingest_batches" else set()
    return own.union(*(_scans(child) for child in plan.get("Plans", [])))


async def test_under_the_lock_the_ledger_is_not_scanned(gatherer_db: Target) -> None:
    """Neither what is looked up nor what is marked reads the ledger from end to end."""
    async with connect(gatherer_db) as conn:
        await conn.execute(
            "INSERT INTO ingest_batches (lane, batch_no, schema_version, table_names, row_counts, row_hashes,"
            " times_from, times_to) SELECT lane, n, 1, '{orderbook_deltas}', '{1}', '{1}', ARRAY[n], ARRAY[n]"
            " FROM (SELECT gen_random_uuid() AS lane FROM generate_series(1, 20)) l, generate_series(1, 2000) n"
        )
        await conn.execute("ANALYZE ingest_batches")
        heads = (await survey_ledger(conn)).heads
        assert set(heads.values()) == {2000} and len(heads) == 20
        statements = (
            (ledger_survey._LATER, (list(heads), list(heads.values()))),
            (ledger_survey._MARK_DROPPED, (100, 300)),
        )
        for statement, bounds in statements:
            text = await conn.fetchval(
                f"EXPLAIN (FORMAT json) {statement}", "orderbook_deltas", 5, 10, *bounds
            )
            scans = _scans(json.loads(text)[0]["Plan"]) - {"ModifyTable"}
            assert scans and "Seq Scan" not in scans
