"""What may happen to a window between its rows and its manifests: a second archiver, late rows, another width, odd times."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from libs.archive.errors import ArchiveError
from libs.archive.keys import BIGINT_MAX, BIGINT_MIN, Window
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.marketdata.units import DAY, HOUR, SECOND
from libs.runtime.clock import SystemClock
from libs.runtime.leasing import LeaseLost
from libs.store import windows
from libs.store.errors import StoreUnavailable
from libs.store.leases import Lease
from libs.store.pages import PLAN_BY_NUMBER
from libs.store.partition_drop import drop_partitions_archived
from libs.store.partitions import ensure_partitions
from libs.store.pool import Pool, Target, connect, open_pool
from services.archiver.export import export_window
from tests.integration.archive.world import (
    WIDTH,
    Production,
    archiver,
    manifests,
    rows_of,
)


@pytest.fixture
async def pool(production_db: Target) -> AsyncIterator[Pool]:
    async with open_pool(production_db) as opened:
        yield opened


@pytest.fixture
def now() -> int:
    return SystemClock().now()


class Held(ObjectStore):
    """An object store whose puts begin when told to."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def put(self, key: str, source: Path, sha256: str) -> None:
        self.begun.set()
        assert self.go_on.wait(30)
        super().put(key, source, sha256)


async def lease_of(pool: Pool) -> Lease:
    """The lease, taken from whoever has it."""
    await pool.execute("UPDATE leases SET expires_at = '-infinity'")
    lease = Lease(pool, "archiver", uuid.uuid4(), 60.0)
    assert await lease.take_once()
    return lease


def objects(store: ObjectStore) -> list[str]:
    return [name for name in store.names() if name.endswith(".parquet")]


async def pending(pool: Pool) -> list[Window]:
    return [one.window for one in await windows.pending_windows(pool, ORDERBOOK_DELTAS)]


async def test_a_late_archiver_replaces_nothing_and_records_nothing(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """It was stopped before its put, another one archived more rows meanwhile: their object stays what was recorded."""
    production, root = Production(production_db, now), str(tmp_path / "archive")
    window = Window(production.start, production.start + WIDTH)
    held, store = Held(root), ObjectStore(root)
    await production.merge(1, 2)
    await windows.note_pending(pool, ORDERBOOK_DELTAS, WIDTH)
    mine = await lease_of(pool)
    late = asyncio.create_task(export_window(pool, held, ORDERBOOK_DELTAS, window, mine))
    assert await asyncio.to_thread(held.begun.wait, 10)
    await production.merge(5, 6, 7)
    others = await lease_of(pool)
    recorded = await export_window(pool, store, ORDERBOOK_DELTAS, window, others)
    held.go_on.set()
    with pytest.raises(LeaseLost):
        await late
    assert recorded is not None and recorded.rows == 5
    assert store.sha256(recorded.object) == recorded.sha256
    assert len(rows_of(store, tmp_path, recorded.object)) == 5
    assert await manifests(pool) == [(0, 5, 0, 2)]


async def test_a_window_with_newer_rows_stays_pending(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """Rows noted while their window's object was being made wait for the next one, whoever noted them."""
    production, held = Production(production_db, now), Held(str(tmp_path / "archive"))
    window = Window(production.start, production.start + WIDTH)
    await production.merge(1, 2)
    await windows.note_pending(pool, ORDERBOOK_DELTAS, WIDTH)
    lease = await lease_of(pool)
    first = asyncio.create_task(export_window(pool, held, ORDERBOOK_DELTAS, window, lease))
    assert await asyncio.to_thread(held.begun.wait, 10)
    await production.merge(3)
    await windows.note_pending(pool, ORDERBOOK_DELTAS, WIDTH)
    held.go_on.set()
    assert await first is not None
    assert await pending(pool) == [window]
    assert await export_window(pool, held, ORDERBOOK_DELTAS, window, lease) is not None
    assert await pending(pool) == []
    assert await manifests(pool) == [(0, 2, 0, 1), (1, 1, 1, 2)]


async def test_without_the_lease_nothing_is_struck_off(
    production_db: Target, pool: Pool, now: int, tmp_path: Path
) -> None:
    """Neither by an export without rows."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    await production.merge(1)
    await windows.note_pending(pool, ORDERBOOK_DELTAS, WIDTH)
    await pool.execute("DELETE FROM orderbook_deltas")
    window, lost, held = (await pending(pool))[0], await lease_of(pool), await lease_of(pool)
    with pytest.raises(LeaseLost):
        await export_window(pool, store, ORDERBOOK_DELTAS, window, lost)
    assert await pending(pool) == [window]
    assert await export_window(pool, store, ORDERBOOK_DELTAS, window, held) is None
    assert await pending(pool) == []


async def test_an_open_window_that_was_exported_at_a_stop_waits_for_its_end(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """After a restart in the middle of an hour its rows become one supplement, when the hour is closed."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    later = now + 60 * SECOND
    production.start = later - later % HOUR
    hours = {"window_s": 3600, "close_after_s": 1}
    await production.merge(1)
    await archiver(pool, store, now, **hours).export_once(closing=True)
    for number in range(6):
        await production.merge(10 + number)
        assert await archiver(pool, store, later, **hours).export_once() == 0
    assert len(objects(store)) == 1
    closed = archiver(pool, store, production.start + 2 * HOUR, **hours)
    assert await closed.export_once() == 1
    assert await manifests(pool) == [(0, 1, 0, 1), (1, 6, 1, 7)]


async def test_late_rows_wait_for_one_another(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """A closed window gets at most one supplement in close_after_s, however many merges bring late rows."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    await production.merge(1)

    async def export_after(seconds: int) -> int:
        work = archiver(pool, store, now + seconds * SECOND, close_after_s=300)
        return await work.export_once()

    assert await export_after(280) == 1
    for number in range(3):
        await production.merge(2 + number)
        assert await export_after(280) == 0
    assert await export_after(400) == 1
    assert await manifests(pool) == [(0, 1, 0, 1), (1, 3, 1, 4)]


@pytest.mark.parametrize(("before", "after"), [(3600, 10), (10, 3600)])
async def test_another_width_archives_no_row_twice(
    production_db: Target, pool: Pool, tmp_path: Path, now: int, before: int, after: int
) -> None:
    """A day keeps its width, also for windows it did not have; the next day has the new one, and partitions may go."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    production.start = now - now % DAY - 2 * DAY
    await production.merge(1, 2, 25 * SECOND)
    await archiver(pool, store, now, window_s=before).export_once(closing=True)
    await production.merge(4, 15 * SECOND, 2 * HOUR, DAY + 5 * HOUR)
    await archiver(pool, store, now, window_s=after).export_once(closing=True)
    spans = await pool.fetch(
        "SELECT DISTINCT window_from, window_to FROM archive_manifests ORDER BY 1"
    )
    widths = [(row["window_to"] - row["window_from"]) // SECOND for row in spans]
    assert widths == [before] * (len(spans) - 1) + [after]
    rows = sum(rows for _, rows, _, _ in await manifests(pool))
    assert rows == await pool.fetchval("SELECT count(*) FROM orderbook_deltas") == 7


async def test_a_width_noted_but_not_yet_archived_counts(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """Windows that were pending when the width was changed are of their day's width, and so are those beside them."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    production.start = now - now % DAY - DAY
    await production.merge(1)
    await archiver(pool, store, production.start, window_s=10).export_once()
    await production.merge(12 * SECOND)
    await archiver(pool, store, production.start, window_s=3600).export_once()
    assert await pending(pool) == [
        Window(production.start + k * WIDTH, production.start + (k + 1) * WIDTH) for k in (0, 1)
    ]


async def test_partitions_may_go_after_a_change_of_width(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """The manifests account for every row, late ones too."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    production.start = now - now % HOUR - 2 * HOUR
    async with connect(production_db) as conn:
        await ensure_partitions(conn, "production", now)
    await production.merge(1, 2)
    await archiver(pool, store, now, window_s=3600).export_once(closing=True)
    await production.merge(4)
    await archiver(pool, store, now, window_s=10).export_once(closing=True)
    async with connect(production_db) as conn:
        gone = await drop_partitions_archived(conn, production.start + HOUR)
    assert gone.kept == ()
    assert ("orderbook_deltas", production.start) in [(p.table, p.start) for p in gone.dropped]


async def test_an_export_may_take_longer_than_a_statement(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """The limit of an export is its own, both ways."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path))
    await production.merge(*range(1, 3000))
    async with open_pool(replace(production_db, statement_timeout_s=2.0)) as tight:
        await hold_up(pool)
        assert await tight.fetchval("SHOW statement_timeout") == "2s"
        window = Window(production.start, production.start + WIDTH)
        exported = await windows.export_csv(tight, ORDERBOOK_DELTAS, window, tmp_path / "rows")
        assert exported.rows == 2999
        assert await windows.note_pending(tight, ORDERBOOK_DELTAS, WIDTH) == 1
        with pytest.raises(StoreUnavailable, match="statement timeout"):
            await windows.export_csv(tight, ORDERBOOK_DELTAS, window, tmp_path / "rows", 0.1)
    assert await archiver(pool, store, now).export_once(closing=True) == 1


async def hold_up(pool: Pool) -> None:
    """From now on it takes three seconds to find out the number of the last merge."""
    await pool.execute("ALTER TABLE writer_lease RENAME TO writer_lease_itself")
    await pool.execute(
        "CREATE VIEW writer_lease AS SELECT w.* FROM writer_lease_itself w, LATERAL (SELECT pg_sleep(3)) AS slow"
    )


@pytest.mark.parametrize(
    "moment", [BIGINT_MIN, -5, -10 * SECOND, 1_795_000_000_000_000_000, BIGINT_MAX]
)
async def test_every_moment_is_archived(
    production_db: Target, pool: Pool, tmp_path: Path, now: int, moment: int
) -> None:
    """A time before 1970 or beyond the year 9999 is a row like another, and stops nobody else's."""
    production, store = Production(production_db, now), ObjectStore(str(tmp_path / "archive"))
    await production.merge(1)
    start, production.start = production.start, 0
    await production.merge(moment)
    assert await archiver(pool, store, now).export_once(closing=True) == 2
    assert await archiver(pool, store, now).export_once(closing=True) == 0
    found = {row[1] for key in objects(store) for row in rows_of(store, tmp_path, key)}
    assert found == {moment, start + 1}
    assert await pending(pool) == []


class Refusing(ObjectStore):
    """Refuses the objects whose names contain one of the texts; `asked` are the names it was asked to put."""

    def __init__(self, root: str, *texts: str) -> None:
        super().__init__(root)
        self.texts, self.asked = texts, list[str]()

    def put(self, key: str, source: Path, sha256: str) -> None:
        self.asked.append(key)
        if any(text in key for text in self.texts):
            raise ArchiveError("refused")
        super().put(key, source, sha256)


async def test_a_window_that_fails_stops_no_other(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """The others are archived in the same round, and come before it in the next one; the fault is told."""
    production = Production(production_db, now)
    await production.merge(1, 12 * SECOND, 22 * SECOND)
    store = Refusing(str(tmp_path), f"-{production.start}-")
    work = archiver(pool, store, now)
    with pytest.raises(ArchiveError, match="refused"):
        await work.export_once(closing=True)
    assert len(await manifests(pool)) == 2
    await production.merge(32 * SECOND)
    store.asked.clear()
    with pytest.raises(ArchiveError, match="refused"):
        await work.export_once(closing=True)
    assert [f"-{production.start}-" in key for key in store.asked] == [False, True]
    store.texts = ()
    assert await work.export_once(closing=True) == 1


async def test_a_store_that_is_away_is_not_asked_for_every_window(
    production_db: Target, pool: Pool, tmp_path: Path, now: int
) -> None:
    """After three faults in a row the round ends; the next one begins with windows that were not tried yet."""
    production, store = Production(production_db, now), Refusing(str(tmp_path), "orderbook")
    await production.merge(*(k * 10 * SECOND for k in range(6)))
    work = archiver(pool, store, now)
    for _ in range(2):
        with pytest.raises(ArchiveError, match="refused"):
            await work.export_once(closing=True)
    assert len(store.asked) == len(set(store.asked)) == 6


async def test_new_rows_are_found_by_their_number(production_db: Target, now: int) -> None:
    """The partition that is being filled is not read as a whole, though nothing was analysed yet."""
    async with connect(production_db) as conn:
        await ensure_partitions(conn, "production", now)
        await conn.execute(
            "INSERT INTO orderbook_deltas SELECT $1::bigint + g, $1, 5, g, 52000, 1, 1, true, $2, 'T' || g % 100,"
            " NULL, NULL, 1, g / 100 FROM generate_series(1, 20000) g",
            now - now % HOUR, uuid.UUID(int=1),
        )  # fmt: skip
        async with conn.transaction():
            await conn.execute(PLAN_BY_NUMBER)
            plan = await conn.fetch(f"EXPLAIN {windows.new_seconds(ORDERBOOK_DELTAS)}", 195, 200)
    text = "\n".join(row[0] for row in plan)
    assert "Seq Scan" not in text
    assert "merge_no_idx" in text or "merge_no" in text.partition("Bitmap Index Scan on")[2]


async def test_the_archiver_looks_with_that_plan(
    production_db: Target, pool: Pool, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that make the plan hold in the transaction that looks."""
    await Production(production_db, now).merge(1)
    query = "SELECT 0::bigint AS second WHERE $1 < $2::bigint AND current_setting('enable_seqscan') = 'off'"
    monkeypatch.setattr(windows, "new_seconds", lambda _: query)
    await windows.note_pending(pool, ORDERBOOK_DELTAS, WIDTH)
    assert await pending(pool) == [Window(0, WIDTH)]
