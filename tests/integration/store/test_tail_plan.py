"""What following a table costs: only what is new, however long the ledger is."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from libs.store import tail
from libs.store.pool import AnyConnection, Target, connect

BATCHES = 2_000
LANES = 30


async def _long_ledger(conn: AnyConnection) -> list[UUID]:
    """Thirty lanes of 2,000 batches each, a third of them of the family that is followed; return those."""
    await conn.execute(
        "insert into lanes (lane, family, process, instance)"
        " select gen_random_uuid(), (array['rest', 'deltas', 'trades'])[1 + n % 3], 'p' || n, gen_random_uuid()"
        " from generate_series(1, $1::int) n",
        LANES,
    )
    await conn.execute(
        "insert into ingest_batches (lane, batch_no, schema_version, table_names, row_counts, row_hashes, times_from,"
        " times_to) select lane, n, 1, '{market_lifecycle}', '{1}', '{1}', '{1}', '{2}'"
        " from lanes, generate_series(1, $1::int) n",
        BATCHES,
    )
    await conn.execute("analyze lanes, ingest_batches")
    return [row[0] for row in await conn.fetch("select lane from lanes where family = 'rest'")]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


async def _ledger_rows_read(conn: AnyConnection, lanes: list[UUID], cursor: int) -> int:
    """Ledger rows the query takes into its hands; fails when it reads the ledger from end to end."""
    text = await conn.fetchval(
        f"explain (analyze, format json) {tail._NEXT}",
        lanes, [cursor] * len(lanes), "market_lifecycle", "rest", 50,
    )  # fmt: skip
    nodes = [
        node
        for node in _nodes(json.loads(text)[0]["Plan"])
        if node.get("Relation Name") == "ingest_batches"
    ]
    assert nodes and all(node["Node Type"] != "Seq Scan" for node in nodes)
    return int(
        sum(
            node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            for node in nodes
        )
    )


async def test_the_tail_reads_only_what_is_new(gatherer_db: Target) -> None:
    """At the end nothing is read, near it only the new rows, and from the start no more than a page of each lane."""
    async with connect(gatherer_db) as conn:
        lanes = await _long_ledger(conn)
        assert await _ledger_rows_read(conn, lanes, BATCHES) == 0
        assert await _ledger_rows_read(conn, lanes, BATCHES - 2) <= 2 * len(lanes)
        assert await _ledger_rows_read(conn, lanes, 0) <= 50 * len(lanes)
