"""The promises of capture when batches go over the disk: sessions, spool, deaths, heirs, and databases that went back."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.marketdata.listening import union
from libs.marketdata.tables import Family
from libs.runtime.clock import ManualClock
from services.connector.buffer import Marks
from services.connector.openings import rows_of
from services.connector.outlets import Outlets
from tests.unit.connector.spool_world import Database, Killed, Process
from tests.unit.connector.test_soundness import check
from tests.unit.connector.world import LIMITS, STEP, Gatherer, Stored, World

SEEDS = st.integers(0, 1_000_000)
MARKS = Marks(rows_high=20, rows_low=5, bytes_high=1 << 30, age=500_000)
NEVER = Marks(rows_high=1 << 30, rows_low=5, bytes_high=1 << 30, age=1 << 60)


class Seen(Stored):
    """What a database in memory holds."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database

    def rows(self, table: str) -> list[Any]:
        return [row for _, sealed in self.database.batches for row in rows_of(sealed, table)]


class Spooler(Gatherer):
    """A gatherer whose batches may lie on the disk; it may die at any step and be succeeded."""

    def __init__(
        self, world: World, directory: Path, loop: asyncio.AbstractEventLoop, rows: int
    ) -> None:
        super().__init__(world, 1, rows)
        self.directory, self.loop, self.rows_max = directory, loop, rows
        self.databases = {family: Database() for family in Family}
        self.stored = {family: Seen(database) for family, database in self.databases.items()}
        self.clock = ManualClock(self.now())
        self.lives = 0
        self.begin()

    def begin(self) -> None:
        """A new process on the same volume."""
        self.lives += 1
        self.outlets = Outlets(LIMITS, 1 << 30)
        self.processes = {
            family: Process(
                self.directory / family.value, database, self.rng, family=family, clock=self.clock,
                rows_max=self.rows_max, marks=MARKS,
            )
            for family, database in self.databases.items()
        }  # fmt: skip
        self.buffers = {family: process.buffer for family, process in self.processes.items()}

    def die(self) -> None:
        """Nothing is said and nothing is kept but the disk; heirs may die too."""
        self.session = self.connection = None
        self.dial_at = self.world.now + self.rng.randint(50, 2000)
        if "restore" in self.world.faults and self.rng.random() < 0.5:
            self.undo()
        while True:
            self.begin()
            try:
                for process in self.processes.values():
                    self.loop.run_until_complete(process.inherit(self.rng.choice([0.0, 0.1])))
                return
            except Killed:
                continue

    def write(self, force: bool = False) -> None:
        faults, rng = self.world.faults, self.rng
        self.clock.advance(STEP / 1000)
        if force or rng.random() < 0.5:
            self.cut_batches()
        if "away" in faults and self.world.is_active and rng.random() < 0.03:
            self.away = not self.away
        for family, process in self.processes.items():
            self.loop.run_until_complete(process.spooling.turn())
            sources = self.outlets.batchers[family].sources
            while (force or (not self.away and rng.random() < 0.8)) and (
                self.loop.run_until_complete(process.write_once(sources))
            ):
                pass
        if self.world.is_active and "restore" in faults and rng.random() < 0.01:
            self.undo()
        if self.world.is_active and "die" in faults and rng.random() < 0.006:
            self.die()

    def undo(self) -> None:
        """The database is restored to an earlier state; writers find out by themselves."""
        for database in self.databases.values():
            keep = len(database.batches) - self.rng.randint(1, 20)
            del database.batches[max(0, keep) :]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def run(
    seed: int, faults: str, directory: Path, loop: asyncio.AbstractEventLoop, rows: int
) -> World:
    world = World(seed, faults, gatherers=1)
    world.gatherers = [Spooler(world, directory, loop, rows)]
    return world.run()


@pytest.mark.parametrize(
    ("faults", "rows"),
    [
        ("away tiny", 10_000),
        ("away tiny loss cut markets restore", 10_000),
        ("away tiny loss cut markets die", 10_000),
        ("away tiny loss cut markets mangle double die restore", 60),
    ],
)
@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_nothing_extra_and_nothing_missing_inside_a_claim(
    faults: str,
    rows: int,
    seed: int,
    loop: asyncio.AbstractEventLoop,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever lies on the disk when it happens: absences, deaths, heirs that die, restores, and memory too small."""
    world = run(seed, faults, tmp_path_factory.mktemp("world"), loop, rows)
    check(world)
    (gatherer,) = world.gatherers
    assert isinstance(gatherer, Spooler)
    assert not any(process.buffer.on_disk for process in gatherer.processes.values())
    if faults == "away tiny":
        for ticker in world.tickers:
            spans = union((c.from_ts, c.to_ts) for c in world.claims() if c.ticker == ticker)
            assert len(spans) == 1


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_spool_is_claimed_though_the_database_lost_what_came_before(
    seed: int, dies: bool, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    """Restored to nothing while batches lay on the disk: the first of them restates, by the process itself or its heir."""
    world = World(seed, "", gatherers=1)
    spooler = Spooler(world, tmp_path, loop, 100_000)
    world.gatherers = [spooler]
    spooler.dial_at = 0
    end = world.now + 9_000
    while world.now < end:
        spooler.away = world.now > end - 5_000
        spooler.step()
        spooler.write()
        world.now += STEP
    assert spooler.processes[Family.DELTAS].buffer.on_disk
    for database in spooler.databases.values():
        del database.batches[:]
    spooler.away = False
    if dies:
        spooler.rng = Random(1)
        spooler.die()
    world.duration = 0
    world.run()
    check(world)
    begun, until = (end - 5_000 + 2_500) * 1000, (end - 2_500) * 1000
    for ticker in world.tickers:
        spans = union((c.from_ts, c.to_ts) for c in world.claims() if c.ticker == ticker)
        assert any(start <= begun and until <= stop for start, stop in spans), spans
