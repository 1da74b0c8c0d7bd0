"""The queue over memory and disk against a list: nothing lost, nothing reordered, nothing doubled but by a legal replay."""

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.flow.batch import Batch
from libs.marketdata.rows import TradeRow
from libs.marketdata.tables import Family
from libs.store import spool as spool_module
from libs.store import spool_run
from libs.store.batches import SealedBatch
from libs.store.spool import SpoolLimits
from libs.store.spool_format import RECORD_MAGIC
from libs.store.spool_notes import write_all
from services.connector import inherited, spooling
from services.connector.openings import rows_of
from tests.unit.connector.spool_world import Database, Killed, Process

SEEDS = st.integers(0, 1_000_000)


def batch(number: int, rows: int, at: int = 1_000_000) -> Batch:
    """A batch of trades that bear its number."""
    made = [
        TradeRow(number, at, 1, 1, 1, True, f"{number}.{n}", "A", None, None, None, None, None)
        for n in range(rows)
    ]
    return Batch(Family.TRADES, {"trades": list(made)}, {}, {}, at)


def number_of(sealed: SealedBatch) -> int:
    """The number its rows bear."""
    (number,) = {row.exchange_ts for row in rows_of(sealed, "trades")}
    return int(number)


def found(directory: Path, pattern: str) -> list[Path]:
    return list(directory.rglob(pattern))


def committed(database: Database) -> list[int]:
    return [number_of(sealed) for _, sealed in database.batches]


class Script:
    """Random steps of one life after the other on one volume, with the list of what must come out."""

    def __init__(self, directory: Path, seed: int, *, crashes: bool) -> None:
        self.directory, self.rng, self.crashes = directory, Random(seed), crashes
        self.database = Database()
        self.numbers = 0
        self.lost_in_memory: set[int] = set()
        self.dropped: list[int] = []
        self.lives = 0

    async def live(self, steps: int) -> Process:
        """One process: puts, turns, commits, absences; ends with a crash or with everything committed."""
        rng, away = self.rng, False
        process = Process(self.directory, self.database, rng)
        self.lives += 1
        accepted: list[int] = []
        base = len(self.database.batches)
        for _ in range(steps):
            step = rng.random()
            if step < 0.4:
                self.numbers += 1
                before = process.buffer.taken
                process.buffer.put(
                    batch(self.numbers, rng.randint(1, 5), process.clock.now()), process.clock.now()
                )
                if process.buffer.taken > before:
                    accepted.append(self.numbers)
                else:
                    self.dropped.append(self.numbers)
            elif step < 0.6:
                await process.spooling.turn()
            elif step < 0.9 and not away:
                await process.write_once()
            elif step < 0.95:
                away = not away
            else:
                process.clock.advance(0.3)  # type: ignore[attr-defined]
            assert process.buffer.rows <= process.buffer.rows_max + 5
            assert committed(self.database)[base:] == accepted[: len(self.database.batches) - base]
        if self.crashes and rng.random() < 0.8:
            on_disk = process.buffer.spooled_to
            self.lost_in_memory |= set(accepted[max(on_disk, process.buffer.done) :])
            return process
        while await process.write_once():
            await process.spooling.turn()
        process.buffer.to_spool(0, 0)
        await process.spooling.turn()
        assert committed(self.database)[base:] == accepted
        assert process.spool.size_bytes == 0
        return process


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_one_life_loses_reorders_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Whatever moves to the disk and back, and whenever: commits are the accepted batches in their order, once."""
    directory = tmp_path_factory.mktemp("life") / "f"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "SEGMENT_BYTES_MAX", 900)
        patch.setattr(spooling, "CHUNK_BYTES", Random(seed).choice([1, 400, 8 << 20]))
        asyncio.run(Script(directory, seed, crashes=False).live(200))


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_crashes_lose_only_what_was_in_memory(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Lives that crash, and heirs that die in the middle of the replay: all that was on the disk comes out once, in order."""
    directory = tmp_path_factory.mktemp("lives") / "f"
    rng = Random(seed)
    script = Script(directory, seed, crashes=True)

    async def lives() -> None:
        for _ in range(3):
            before = len(script.database.batches)
            await script.live(rng.randint(5, 120))
            while True:
                heir = Process(directory, script.database, script.rng)
                try:
                    await heir.inherit(dies=rng.choice([0.0, 0.1]))
                except Killed:
                    continue
                assert heir.gaps == []
                break
            assert Process(directory, script.database, script.rng).spool.inherited == []
            own = committed(script.database)[before:]
            assert own == sorted(own)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_module, "SEGMENT_BYTES_MAX", 900)
        patch.setattr(inherited, "CHUNK_BYTES", rng.choice([1, 400, 8 << 20]))
        asyncio.run(lives())
    numbers = committed(script.database)
    missing = set(range(1, script.numbers + 1)) - set(numbers)
    assert missing == script.lost_in_memory | set(script.dropped)
    assert len(numbers) == len(set(numbers))


def test_heirs_that_forget_double_and_lose_nothing(tmp_path: Path) -> None:
    """Without a cursor everything on the disk is committed again: doubles are legal, holes are not."""

    async def lives() -> list[int]:
        process = Process(tmp_path / "f", database, Random(1))
        for number in range(1, 21):
            process.buffer.put(batch(number, 2), process.clock.now())
            await process.spooling.turn()
        for _ in range(5):
            await process.write_once()
        await process.spooling.turn()
        (cursor,) = found(tmp_path, "cursor")
        cursor.unlink()
        heir = Process(tmp_path / "f", database, Random(2))
        (legacy,) = await heir.inherit()
        return [legacy.batches, legacy.doubles]

    database = Database()
    assert asyncio.run(lives()) == [20, 0]
    assert committed(database) == [*range(1, 6), *range(1, 21)]


async def test_what_is_torn_is_counted_and_named(tmp_path: Path) -> None:
    """A crash in the middle of a record: the rest is committed, and a gap says that the end is missing, with its rows."""
    database = Database()
    process = Process(tmp_path / "f", database, Random(1))
    for number in range(1, 6):
        process.buffer.put(batch(number, 4), process.clock.now())
    await process.spooling.turn()
    assert process.buffer.rows == 0
    (segment,) = found(tmp_path, "*.seg")
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 7)
    heir = Process(tmp_path / "f", database, Random(2))
    (legacy,) = await heir.inherit()
    assert committed(database) == [1, 2, 3, 4]
    assert legacy.torn == 1
    assert [(g.channel, g.reason, g.rows_lost) for g in heir.gaps] == [
        ("trade", "process_died", 4),
    ]
    assert not found(tmp_path, "*.seg")


async def test_what_rots_under_a_living_process_is_a_gap(tmp_path: Path) -> None:
    """The writer passes over it, in order, and says what is missing."""
    database = Database()
    process = Process(tmp_path / "f", database, Random(1))
    for number in range(1, 6):
        process.buffer.put(batch(number, 4), process.clock.now())
    await process.spooling.turn()
    assert process.buffer.rows == 0
    (segment,) = found(tmp_path, "*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    while await process.write_once():
        pass
    numbers = committed(database)
    assert numbers == sorted(numbers)
    assert len(numbers) == 4
    assert process.buffer.done == 5
    assert {(g.reason, g.rows_lost) for g in process.gaps} == {("spool_full", 4)}
    await process.spooling.turn()
    assert process.spool.size_bytes == 0


async def test_a_broken_disk_leaves_capture_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory goes on, drops are gaps, one line says so; when the disk takes it again the order is kept."""
    database = Database()
    process = Process(tmp_path / "f", database, Random(1), rows_max=20)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(process.spool, "append", broken)
        patch.setattr(spooling, "RETRY_S", 0.0)
        for number in range(1, 13):
            process.buffer.put(batch(number, 2), process.clock.now())
            await process.spooling.turn()
    assert process.buffer.taken == 10
    assert process.buffer.dropped == {"trades": 4}
    assert [r.message for r in caplog.records].count("spool_unwritable") == 1
    process.clock.advance(2)  # type: ignore[attr-defined]
    await process.spooling.turn()
    assert process.buffer.rows == 0
    gaps = process.buffer.put(batch(13, 2), process.clock.now())
    assert [(g.reason, g.rows_lost) for g in gaps] == [("spool_full", 4)]
    while await process.write_once():
        await process.spooling.turn()
    assert committed(database) == [*range(1, 11), 13]


async def test_a_full_spool_takes_again_what_was_given_back(tmp_path: Path) -> None:
    """Room is given back by the segment; what waited in memory meanwhile follows in its order."""
    database = Database()
    limits = SpoolLimits(60_000, 0, "never")
    process = Process(tmp_path / "f", database, Random(1), limits=limits, rows_max=30)
    accepted: list[int] = []
    for number in range(1, 200):
        taken = process.buffer.taken
        process.buffer.put(batch(number, 2), process.clock.now())
        accepted += [number] if process.buffer.taken > taken else []
        await process.spooling.turn()
        assert process.spool.size_bytes <= process.spool.bytes_max
        if number > 120:
            process.clock.advance(1)  # type: ignore[attr-defined]
            await process.write_once()
            await process.write_once()
    assert len(accepted) < 199
    while await process.write_once():
        process.clock.advance(1)  # type: ignore[attr-defined]
        await process.spooling.turn()
    assert committed(database) == accepted


async def test_everything_goes_to_the_disk_before_the_process_ends(tmp_path: Path) -> None:
    """However little it is; the next process commits it."""
    database = Database()
    process = Process(tmp_path / "f", database, Random(1))
    process.buffer.put(batch(1, 1), process.clock.now())
    await process.spooling.turn()
    assert process.spool.size_bytes == 0
    await process.spooling.keep_all()
    assert process.buffer.rows == 0
    heir = Process(tmp_path / "f", database, Random(2))
    await heir.inherit()
    assert committed(database) == [1]


@pytest.mark.parametrize("ahead", [[0.5], [0.1, 0.2]])
async def test_an_old_batch_goes_to_the_disk_and_young_ones_do_not(
    tmp_path: Path, ahead: Sequence[float]
) -> None:
    """Age begins the spooling when rows alone would not; a small spool ends it."""
    process = Process(tmp_path / "f", Database(), Random(1))
    process.buffer.put(batch(1, 1, process.clock.now()), process.clock.now())
    for seconds in ahead:
        process.clock.advance(seconds)  # type: ignore[attr-defined]
        await process.spooling.turn()
    assert process.buffer.on_disk == (max(ahead) >= 0.4)
    await process.write_once()
    assert not process.buffer.is_spooling


@pytest.mark.parametrize("failures", [1, 2, 5])
async def test_records_that_a_disk_refuses_after_their_segments_header_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """The file that has only its header is gone on with: two segments of one name would be deleted together."""
    monkeypatch.setattr(spooling, "CHUNK_BYTES", 2000)
    process = Process(tmp_path, database := Database(), Random(1), rows_max=1000)
    now = process.clock.now
    refuse = iter([True] * failures)

    def refused(fd: int, data: bytes) -> None:
        if data.startswith(RECORD_MAGIC) and next(refuse, False):
            raise OSError(errno.EIO, "Input/output error")
        write_all(fd, data)

    for number in range(1, 9):
        process.buffer.put(batch(number, 3, now()), now())
    await process.spooling.turn()
    monkeypatch.setattr(spool_run, "write_all", refused)
    for number in range(9, 40):
        process.buffer.put(batch(number, 3, now()), now())
    for _ in range(failures + 3):
        process.clock.advance(1.1)  # type: ignore[attr-defined]
        await process.spooling.turn()
    assert next(refuse, None) is None
    assert process.spool.run is not None
    segments = [segment.path for segment in process.spool.run._segments]
    assert len(segments) == len(set(segments)) > 1
    while await process.write_once():
        await process.spooling.turn()
    assert committed(database) == list(range(1, 40))
    assert process.gaps == []
