"""What an ending process says of what it leaves on its disk: from the oldest row that is not committed, wherever it lies."""

import os
import shutil
from pathlib import Path
from random import Random

import pytest

from libs.flow.batch import Batch
from libs.marketdata.rows import GapRow, TradeRow
from libs.marketdata.tables import Family
from libs.runtime.clock import ManualClock
from libs.store.spool import Spool
from services.connector.disk import Disk
from services.connector.leftovers import Leftovers
from tests.unit.connector.spool_world import LIMITS, Database, Process

FAMILY = Family.TRADES
ENDED_AT = 99_000_000


def batch(at: int) -> Batch:
    """A batch that came then."""
    row = TradeRow(at, at, 1, 1, 1, True, str(at), "A", None, None, None, None, None)
    return Batch(FAMILY, {"trades": [row]}, {}, {}, at)


class Life:
    """One process's part of a spool in this directory."""

    def __init__(self, directory: Path) -> None:
        self.spool = Spool(directory, LIMITS)
        self.process = Process(directory / FAMILY.value, Database(), Random(1))
        self.spool.families[FAMILY] = self.process.spool

    async def receive(self, *moments: int, keep: bool = True) -> None:
        """Take a batch at each of these; on the disk if told so."""
        for at in moments:
            self.process.buffer.put(batch(at), at)
        if keep:
            await self.process.spooling.keep_all()

    async def gaps(self, zone: str = "a", *, is_held: bool = True) -> list[GapRow]:
        held = {FAMILY: self.process.buffer} if is_held else {}
        left = Leftovers(zone, "s", self.spool, Disk(), held, is_waiting=True)
        return await left.gaps(ENDED_AT)

    async def since(self) -> int | None:
        """From when on the one row says that rows are left."""
        (row,) = await self.gaps()
        assert (row.channel, row.reason, row.slot) == ("trade", "storage_full", "")
        assert (row.received_to, row.to_ts, row.rows_lost) == (ENDED_AT, None, None)
        return row.received_from


async def test_the_oldest_row_left_is_found_in_memory_and_on_the_disk(tmp_path: Path) -> None:
    """In memory only, on the disk and read by nobody, behind what was committed; nothing left: no row."""
    life = Life(tmp_path)
    assert await life.gaps() == []
    await life.receive(1_000, 2_000, keep=False)
    assert await life.since() == 1_000
    await life.receive(3_000, 4_000)
    assert await life.process.write_once()
    await life.receive(5_000, keep=False)
    assert await life.since() == 2_000
    assert await life.gaps(is_held=False) == []
    while await life.process.write_once():
        pass
    assert await life.gaps() == []


async def test_runs_of_earlier_processes_count_as_far_as_they_are_not_committed(
    tmp_path: Path,
) -> None:
    """They go with the disk as well; not those of another zone, which were never this one's."""
    before = Life(tmp_path)
    await before.receive(1_000, 2_000, 3_000)
    assert await before.process.write_once()
    await before.process.spooling.turn()
    assert before.process.spool.run is not None
    before.process.spool.run.close()
    life = Life.__new__(Life)
    life.spool, life.process = Spool(tmp_path, LIMITS), before.process
    life.spool.families[FAMILY].find()
    (row,) = await life.gaps(is_held=False)
    assert row.received_from == 2_000
    assert await life.gaps("b", is_held=False) == []


@pytest.mark.parametrize("harm", ["torn", "gone"])
async def test_a_disk_that_does_not_say_it_costs_no_row(tmp_path: Path, harm: str) -> None:
    """A torn body has its head still; of a run that is not there any more its name says when it was begun."""
    life = Life(tmp_path)
    clock = life.process.clock
    assert isinstance(clock, ManualClock)
    begun = clock.now()
    await life.receive(1_000)
    run = life.process.spool.run
    assert run is not None
    if harm == "torn":
        (segment,) = run.path.glob("*.seg")
        os.truncate(segment, segment.stat().st_size - 1)
    else:
        shutil.rmtree(run.path)
    assert await life.since() == (1_000 if harm == "torn" else begun)
