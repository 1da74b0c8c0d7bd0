"""What an heir restates when the database does not hold what the dead process had confirmed."""

import asyncio
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from libs.marketdata.rows import TickerRow, TradeRow, gap
from libs.marketdata.tables import Family
from libs.store.batches import SealedBatch, seal
from libs.store.errors import LaneLost
from libs.store.lanes import Committed
from libs.store.spool import Spool, SpoolLimits
from libs.store.spool_format import Record, RunHeader
from libs.store.spool_notes import Cursor
from services.connector import inherited
from services.connector.openings import Openings, rows_of
from services.connector.spools import Spools
from tests.unit.connector import spool_world
from tests.unit.connector.spool_world import Database, Process
from tests.unit.connector.test_openings import ONE, closed, opened, ranged, record

LANE = UUID(int=77)
HEADER = RunHeader("a", "", "s", "i", Family.DELTAS.value, str(LANE), 7)
RECORDS = [
    record(1, ranges=[ranged(1, 3)], opened=[opened("A", 1, 1), opened("B", 2, 2)]),
    record(2, ranges=[ranged(4, 6)], closed=[closed("B", 2, 5)]),
    record(3, ranges=[ranged(7, 9)]),
    record(4, ranges=[ranged(10, 12)]),
]


def leave(directory: Path, *, done: int) -> Path:
    """Die with the records on the disk, some of them committed, and the openings as of the beginning; return the file."""
    process = Process(directory, Database(), Random(1), family=Family.DELTAS)
    state = Openings().dump(0).pack
    process.spool.append(HEADER, RECORDS, state, Cursor(done, LANE, done))
    assert process.spool.run is not None
    process.spool.run.close()
    (segment,) = directory.rglob("*.seg")
    return segment


def restated(database: Database) -> list[list[tuple[str, int]]]:
    return [
        [(row.ticker, row.seq) for row in rows_of(sealed, "listen_opened")]
        for _, sealed in database.batches
    ]


async def test_a_database_that_went_back_has_restated_what_went_on(tmp_path: Path) -> None:
    """Of the committed records too, though they stand behind the state that was kept; what closed in them is not."""
    leave(tmp_path / "f", done=2)
    heir = Process(tmp_path / "f", Database(), Random(2), family=Family.DELTAS)
    await heir.inherit()
    assert restated(heir.database) == [[("A", 7)], []]
    assert {gap.reason for gap in heir.gaps} == {"database_went_back", "process_died"}


async def test_nothing_is_restated_over_a_committed_record_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold the end of any stream; it is no loss, because it is committed."""
    segment = leave(tmp_path / "f", done=2)
    data = bytearray(segment.read_bytes())
    data[data.find(b"why")] ^= 1
    segment.write_bytes(data)
    write, lost = spool_world.Lane.write, [LaneLost("database_went_back")]

    async def loses_one(self: spool_world.Lane, batch: SealedBatch) -> Committed:
        if lost:
            raise lost.pop()
        return await write(self, batch)

    monkeypatch.setattr(spool_world.Lane, "write", loses_one)
    heir = Process(tmp_path / "f", Database(), Random(2), family=Family.DELTAS)
    (legacy,) = await heir.inherit()
    assert restated(heir.database) == [[], []]
    assert legacy.torn == 0


async def test_an_heir_that_dies_before_its_first_commit_leaves_the_proof(tmp_path: Path) -> None:
    """Its own lane is not there yet: doubles are still to be looked for on that of the dead process."""
    leave(tmp_path / "f", done=2)
    database = Database(known={LANE})
    database.batches = [(LANE, found.sealed) for found in RECORDS]
    heir = Process(tmp_path / "f", database, Random(2), family=Family.DELTAS)
    (run,) = heir.spool.inherited
    (legacy,) = await heir.inherit()
    assert (legacy.batches, legacy.doubles) == (0, 2)
    assert run.cursor == Cursor(4, LANE, 2)


def leave_both(directory: Path) -> SealedBatch:
    """Die as a process did when tickers went with trades: two batches, the second torn; return what each holds."""
    process = Process(directory / "trades", Database(), Random(1), family=Family.TRADES)
    header = RunHeader("a", "", "s", "i", "trades", str(LANE), 7)
    heard = [opened(None, 1, 1, "trade"), opened(None, 2, 1, "ticker")._replace(sid=2)]
    both = seal(
        {
            "trades": [TradeRow(1, 1, 1, 4, 6, True, "t", "A", ONE, 1, 2, 1, None)],
            "tickers": [TickerRow(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 2, ONE, "A", 1)],
            "listen_opened": heard,
            "listen_ranges": [ranged(1, 3)],
        }
    )
    state = Openings().dump(0).pack
    process.spool.append(
        header, [Record(1, 1, both), Record(2, 1, both)], state, Cursor(0, LANE, 0)
    )
    assert process.spool.run is not None
    process.spool.run.close()
    (segment,) = directory.rglob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-1])
    return both


async def test_a_run_of_trades_and_tickers_from_before_they_were_apart_is_taken_over(
    tmp_path: Path,
) -> None:
    """Committed on a lane of trades, and what is torn of it is a gap of both."""
    both = leave_both(tmp_path)
    spool = Spool(tmp_path, SpoolLimits(1 << 30, 0, "never"))
    assert spool.open() == []
    assert {family: len(part.inherited) for family, part in spool.families.items()} == {
        Family.DELTAS: 0, Family.TRADES: 1, Family.TICKERS: 0, Family.REST: 0,
    }  # fmt: skip
    spool.close()
    heir = Process(tmp_path / "trades", Database(), Random(2), family=Family.TRADES)
    (legacy,) = await heir.inherit()
    assert (legacy.batches, legacy.torn) == (1, 1)
    ((_, sealed),) = heir.database.batches
    assert sealed.digest == both.digest
    torn = [gap.channel for gap in heir.gaps if "torn" in gap.detail]
    assert torn == ["trade", "ticker"]


async def test_an_heir_restates_in_parts_and_takes_none_of_them_for_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Openings alone tell no batch apart: what an heir that died had restated is restated again, and no batch left out."""
    monkeypatch.setattr(inherited, "RESTATED_MAX", 1)
    only_opened = record(3, opened=[opened("C", 3, 7)])
    records = [
        record(1, ranges=[ranged(1, 3)], opened=[opened("A", 1, 1), opened("B", 2, 2)]),
        record(2, ranges=[ranged(4, 6)]),
        only_opened,
    ]
    process = Process(tmp_path / "f", Database(), Random(1), family=Family.DELTAS)
    state = Openings().dump(0).pack
    process.spool.append(HEADER, records, state, Cursor(1, LANE, 1))
    assert process.spool.run is not None
    process.spool.run.close()
    part = seal({"listen_opened": [opened("A", 1, 4)]})
    database = Database(known={LANE})
    database.batches = [(LANE, records[0].sealed), (LANE, part)]
    heir = Process(tmp_path / "f", database, Random(2), family=Family.DELTAS)
    (legacy,) = await heir.inherit()
    assert (legacy.batches, legacy.doubles) == (2, 0)
    assert restated(database)[2:] == [[], [("C", 7)]]

    process = Process(tmp_path / "g", Database(), Random(1), family=Family.DELTAS)
    process.spool.append(HEADER, records, state, Cursor(1, LANE, 1))
    assert process.spool.run is not None
    process.spool.run.close()
    heir = Process(tmp_path / "g", Database(), Random(2), family=Family.DELTAS)
    await heir.inherit()
    assert restated(heir.database) == [[("A", 4)], [("B", 4)], [], [("C", 7)]]


@pytest.mark.parametrize(
    ("family", "waiting"),
    [
        (Family.DELTAS, ["orderbook_delta"]),
        (Family.TRADES, ["ticker", "trade"]),
        (Family.REST, ["market_lifecycle_v2"]),
    ],
)
def test_a_gap_waits_only_for_a_run_that_may_know_more_of_it(
    family: Family, waiting: list[str]
) -> None:
    """The others are written at once: the run may be held back for days, and its process end before it is committed."""
    spools = Spools.__new__(Spools)
    heir = spools._heir = cast(Any, SimpleNamespace(identity="", known={}))
    parts = {f: SimpleNamespace(family=f, inherited=["run"] * (f is family)) for f in Family}
    spools._spool = cast(Any, SimpleNamespace(families=parts))
    spools._adopted = asyncio.Event()
    channels = ["market_lifecycle_v2", "orderbook_delta", "ticker", "trade"]
    rows = [
        gap(1, channel, "process_died", slot="", received_to=1, connection=ONE, sid=sid)
        for sid, channel in enumerate(channels)
    ]
    at_once = [row.channel for row in spools.adopt(rows, "identity")]
    assert [row.channel for row in heir.known.values()] == waiting
    assert sorted(at_once + waiting) == channels
