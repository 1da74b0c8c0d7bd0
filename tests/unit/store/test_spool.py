"""The spool's files: what went in comes out in order, what a crash tore off is cut and said."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.marketdata.rows import TradeRow
from libs.marketdata.tables import Family
from libs.store import spool as spool_module
from libs.store import spool_notes, spool_reader, spool_run
from libs.store.batches import seal
from libs.store.spool import FamilySpool, Spool, SpoolFull, SpoolLimits
from libs.store.spool_format import (
    HEAD_BYTES,
    Gone,
    Head,
    Record,
    RunHeader,
    SpoolRefused,
    pack_header,
    pack_record,
    read_body,
    read_head,
    read_header,
)
from libs.store.spool_notes import Cursor
from libs.store.spool_reader import Lost
from libs.store.spool_run import SpoolRun

LANE = UUID(int=9)
HEADER = RunHeader("a", "", "connector-a-1", "i", "trades", str(LANE), 7)
LIMITS = SpoolLimits(1 << 30, 0, "never")


def trade(number: int, extra: str = "") -> TradeRow:
    return TradeRow(
        number + 1, 1, 100, 40_000, 60_000, True, f"t{number}{extra}", "A", None, None, None, None, None
    )  # fmt: skip


def record(number: int, rows: int = 2) -> Record:
    return Record(number, 5, seal({"trades": [trade(number, str(n)) for n in range(rows)]}))


def family(directory: Path, limits: SpoolLimits = LIMITS) -> FamilySpool:
    found = FamilySpool(directory, Family.TRADES, limits)
    assert found.find() == []
    return found


def append(spool: FamilySpool, *records: Record) -> None:
    spool.append(HEADER, records, lambda: b"state", Cursor(0, LANE, 0))


def read_all(run: SpoolRun) -> list[Record | Lost]:
    found: list[Record | Lost] = []
    while items := run.read(1):
        found += items
    return found


def numbers(items: list[Record | Lost]) -> list[int]:
    return [item.number for item in items if isinstance(item, Record)]


def segment_bytes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES_MAX", size)


def test_a_record_comes_back_with_its_digest() -> None:
    """Rows, hashes, times, and what a restatement needs, byte for byte."""
    before = Record(
        3, 12, record(3).sealed, ((LANE, 4),), (Gone(LANE, 4, None, 2), Gone(LANE, 5, "A", 1))
    )
    data = pack_record(before)
    head = read_head(data)
    assert head is not None
    after = read_body(head, data[HEAD_BYTES:])
    assert after == before
    assert after.sealed.digest == before.sealed.digest
    assert after.sealed.tables[0].copy_bytes(8) == before.sealed.tables[0].copy_bytes(8)


def test_a_header_says_whose_it_is_and_another_version_is_refused() -> None:
    """Nothing is committed that this code may read wrongly; a torn header is none."""
    data = pack_header(HEADER)
    found = read_header(data + b"more")
    assert found == (HEADER, len(data))
    assert read_header(data[:-1]) is None
    assert read_header(b"x" + data[1:]) is None
    newer = RunHeader("a", "", "s", "i", "trades", str(LANE), 7, format=2)
    with pytest.raises(SpoolRefused, match="format 2"):
        read_header(pack_header(newer))


def test_records_come_back_in_order_over_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while more are appended, and again from the beginning by another process."""
    segment_bytes(monkeypatch, 600)
    spool = family(tmp_path / "f")
    append(spool, *map(record, range(4, 9)))
    run = spool.run
    assert run is not None
    assert numbers(read_all(run)) == [4, 5, 6, 7, 8]
    append(spool, record(9), record(10))
    assert numbers(read_all(run)) == [9, 10]
    assert len(list(run.path.glob("*.seg"))) > 2
    (again,) = family(tmp_path / "f").inherited
    items = read_all(again)
    assert items == [record(n) for n in range(4, 11)]
    assert again.load_state() == b"state"
    assert again.header.zone == "a"


def test_files_are_for_nobody_else(tmp_path: Path) -> None:
    """Directories 0700, files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        spool = Spool(tmp_path / "spool", LIMITS)
        spool.open()
        append(spool.families[Family.TRADES], record(1))
    finally:
        os.umask(before)
    modes = {
        (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for path in [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]
    }
    assert modes == {(True, 0o700), (False, 0o600)}
    spool.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second one is refused until the first has let go."""
    first, second = (Spool(tmp_path / "spool", LIMITS) for _ in range(2))
    first.open()
    with pytest.raises(BlockingIOError):
        second.open()
    first.close()
    second.open()
    second.close()


@given(cut=st.integers(1, 400), rows=st.lists(st.integers(1, 4), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_torn_tail_is_cut_and_said(
    tmp_path_factory: pytest.TempPathFactory, cut: int, rows: list[int]
) -> None:
    """Whatever was cut off the end: whole records come back, the torn one is lost, and the file ends behind the last whole one."""
    directory = tmp_path_factory.mktemp("torn")
    spool = family(directory / "f")
    records = [record(n, count) for n, count in enumerate(rows, 1)]
    append(spool, *records)
    assert spool.run is not None
    (segment,) = spool.run.path.glob("*.seg")
    ends = [len(pack_header(HEADER))]
    for one in records:
        ends.append(ends[-1] + len(pack_record(one)))
    size = max(ends[0], ends[-1] - cut)
    os.truncate(segment, size)
    whole = sum(end <= size for end in ends[1:])
    (run,) = family(directory / "f").inherited
    items = read_all(run)
    assert numbers(items) == list(range(1, whole + 1))
    lost = [item for item in items if isinstance(item, Lost)]
    assert bool(lost) == (size != ends[whole])
    if lost:
        assert lost[0].number_from == whole + 1
        has_head = size - ends[whole] >= HEAD_BYTES
        assert lost[0].rows == (rows[whole] if has_head else None)
    assert segment.stat().st_size == ends[whole]
    assert read_all(run) == []


@given(seed=st.integers(0, 100_000))
@settings(max_examples=60, deadline=None)
def test_what_rots_in_the_middle_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """A flipped byte loses its record, or at most the rest of its segment; every number is read or said to be lost."""
    rng = Random(seed)
    directory = tmp_path_factory.mktemp("rot")
    with pytest.MonkeyPatch.context() as patch:
        segment_bytes(patch, 900)
        spool = family(directory / "f")
        append(spool, *map(record, range(1, 13)))
    assert spool.run is not None
    segments = sorted(spool.run.path.glob("*.seg"))
    victim = rng.choice(
        segments[:-1]
    )  # the last one's tail is told apart from a torn one by nothing
    data = bytearray(victim.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    victim.write_bytes(data)
    (run,) = family(directory / "f").inherited
    items = read_all(run)
    said: list[int] = []
    for item in items:
        if isinstance(item, Record):
            assert item == record(item.number)
            said.append(item.number)
        else:
            assert item.number_to is not None
            said += range(item.number_from, item.number_to + 1)
    assert said == list(range(1, 13))
    lost = set(range(1, 13)) - set(numbers(items))
    following = segments[segments.index(victim) + 1]
    assert lost <= set(range(int(victim.stem), int(following.stem)))


def test_done_segments_go_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor says how far; what a reader of the rest must know is written before anything is deleted."""
    segment_bytes(monkeypatch, 600)
    spool = family(tmp_path / "f")
    append(spool, *map(record, range(1, 11)))
    run = spool.run
    assert run is not None
    read_all(run)
    full = run.size_bytes
    run.release(Cursor(7, LANE, 70), lambda: b"as of 7", delete=run.has_done(7), sync=True)
    assert run.size_bytes < full
    (again,) = family(tmp_path / "f").inherited
    assert again.cursor == Cursor(7, LANE, 70)
    assert again.load_state() == b"as of 7"
    found = numbers(read_all(again))
    assert found == list(range(found[0], 11))
    assert 1 < found[0] <= 8
    spool.drop(run)
    assert spool.size_bytes == 0
    assert not run.path.exists()


def test_notes_that_are_torn_count_as_absent(tmp_path: Path) -> None:
    """A cursor or a state that a power cut left half is not believed."""
    spool = family(tmp_path / "f")
    append(spool, record(1))
    run = spool.run
    assert run is not None
    run.release(Cursor(1, LANE, 1), None, delete=False, sync=False)
    for name in ("cursor", "state"):
        data = bytearray((run.path / name).read_bytes())
        data[-1] ^= 1
        (run.path / name).write_bytes(data)
    (again,) = family(tmp_path / "f").inherited
    assert again.cursor is None
    assert again.load_state() is None


def test_a_family_has_its_share_and_no_more(tmp_path: Path) -> None:
    """What does not fit is refused before it is written; what was accepted before stays."""
    size = len(pack_record(record(1)))
    spool = family(tmp_path / "f", SpoolLimits(40 * size, 0, "never"))
    assert spool.bytes_max == int(40 * size * 0.15)
    with pytest.raises(SpoolFull, match="trades"):
        append(spool, *map(record, range(1, 20)))
    assert spool.size_bytes <= spool.bytes_max
    assert spool.run is not None
    assert numbers(read_all(spool.run)) == list(range(1, spool.run.last + 1))


def test_the_disk_is_not_filled(tmp_path: Path) -> None:
    """Less than free_bytes_min would stay free: full, and nothing is written."""
    spool = family(tmp_path / "f", SpoolLimits(1 << 30, 1 << 62, "never"))
    with pytest.raises(SpoolFull, match="free on the disk"):
        append(spool, record(1))
    assert list((tmp_path / "f").iterdir()) == []


def failing(error: int, after_bytes: int) -> Callable[[int, bytes], None]:
    """A write that puts down so many bytes of a record and then fails."""

    def write(fd: int, data: bytes) -> None:
        os.write(fd, data[:after_bytes])
        raise OSError(error, os.strerror(error))

    return write


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("truncates", [True, False])
def test_a_failed_write_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, truncates: bool
) -> None:
    """Half a record is cut off; where even that fails it is passed over, since the record stands again behind it."""
    spool = family(tmp_path / "f")
    append(spool, record(1))
    run = spool.run
    assert run is not None
    with monkeypatch.context() as patch:
        patch.setattr(spool_run, "write_all", failing(error, 60))
        if not truncates:
            patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(error, "no")))
        with pytest.raises(OSError, match=os.strerror(error)):
            append(spool, record(2), record(3))
    assert run.last == 1
    append(spool, record(2), record(3))
    assert numbers(read_all(run)) == [1, 2, 3]
    (again,) = family(tmp_path / "f").inherited
    assert read_all(again) == [record(1), record(2), record(3)]


def test_a_segment_that_cannot_be_read_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of the rest of it are lost, and reading goes on with the next."""
    segment_bytes(monkeypatch, 600)
    spool = family(tmp_path / "f")
    append(spool, *map(record, range(1, 9)))
    run = spool.run
    assert run is not None
    assert numbers(run.read(1)) == [1]
    following = int(sorted(run.path.glob("*.seg"))[1].stem)
    lost = run.skip()
    assert lost == [Lost(2, following - 1, None)]
    assert numbers(read_all(run)) == list(range(following, 9))


def test_another_versions_run_is_put_aside(tmp_path: Path) -> None:
    """It is renamed, named, and not read; an empty run of a crash vanishes."""
    spool = family(tmp_path / "f")
    newer = RunHeader("a", "", "s", str(uuid4()), "trades", str(LANE), 8, schema=99)
    spool.append(newer, [record(1)], bytes, Cursor(0, LANE, 0))
    (tmp_path / "f" / "00000000000000000009-x").mkdir()
    other = FamilySpool(tmp_path / "f", Family.TRADES, LIMITS)
    (said,) = other.find()
    assert "schema 99" in said
    assert other.inherited == []
    assert [path.name.split("-")[0] for path in (tmp_path / "f").iterdir()] == ["refused"]


@pytest.mark.parametrize(
    ("policy", "appending", "leaving"),
    [("always", True, True), ("interval", False, True), ("never", False, False)],
)
def test_fsync_is_as_the_policy_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: spool_module.FsyncPolicy,
    appending: bool,
    leaving: bool,
) -> None:
    """`always` waits before a batch counts as spooled, `interval` in sync() and before a segment is left, `never` not."""
    calls: list[int] = []
    spool = family(tmp_path / "f", SpoolLimits(1 << 30, 0, policy))
    append(spool, record(1))
    monkeypatch.setattr(os, "fdatasync", calls.append)
    append(spool, record(2))
    assert bool(calls) == appending
    assert spool.run is not None
    spool.run.close()
    assert bool(calls) == leaving


def test_a_segment_the_disk_did_not_take_is_said_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the roll-over what `interval` has not yet synced is synced, and an error of it is raised, not swallowed."""
    spool = family(tmp_path / "f", SpoolLimits(1 << 30, 0, "interval"))
    append(spool, record(1))
    run = spool.run
    assert run is not None

    def ailing(_: int) -> None:
        raise OSError(errno.EIO, "ailing")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="ailing"):
        patched.setattr(os, "fdatasync", ailing)
        run.append([record(2)], segment_bytes=1, admit=lambda _: None, sync=False)
    assert run.last == 1
    run.append([record(2)], segment_bytes=1, admit=lambda _: None, sync=False)
    assert numbers(run.read(1 << 20)) == [1, 2]


def test_an_error_in_the_middle_costs_nothing_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it is returned; the error is raised by the next call, and the one after that goes on."""
    spool = family(tmp_path / "f")
    append(spool, *map(record, range(1, 6)))
    run = spool.run
    assert run is not None
    calls = iter(range(100))

    def ailing(data: bytes) -> Head | None:
        if next(calls) in (2, 3):
            raise OSError(errno.EIO, "ailing")
        return read_head(data)

    monkeypatch.setattr(spool_reader, "read_head", ailing)
    assert numbers(run.read(1 << 20)) == [1, 2]
    with pytest.raises(OSError, match="ailing"):
        run.read(1 << 20)
    assert numbers(run.read(1 << 20)) == [3, 4, 5]


def test_a_run_put_aside_is_kept_and_not_found_again(tmp_path: Path) -> None:
    """A spool of another zone is a person's matter."""
    append(family(tmp_path / "f"), record(1))
    spool = family(tmp_path / "f")
    (run,) = spool.inherited
    aside = spool.refuse(run)
    assert list(aside.glob("*.seg"))
    assert family(tmp_path / "f").inherited == []


@pytest.mark.parametrize("rotten", [0, 1, 3])
def test_a_segment_that_does_not_say_whose_it_is_is_lost_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotten: int
) -> None:
    """Wherever it stands, also last, its records are lost by their numbers, and those of the others come."""
    segment_bytes(monkeypatch, 600)
    append(family(tmp_path / "f"), *map(record, range(1, 9)))
    paths = sorted(tmp_path.rglob("*.seg"))
    assert [int(path.stem) for path in paths] == [1, 3, 5, 7]
    first = int(paths[rotten].stem)
    data = bytearray(paths[rotten].read_bytes())
    data[20] ^= 1
    paths[rotten].write_bytes(data)
    (run,) = family(tmp_path / "f").inherited
    items = read_all(run)
    assert numbers(items) == [n for n in range(1, 9) if n not in (first, first + 1)]
    lost = [item for item in items if isinstance(item, Lost)]
    assert lost == [Lost(first, None if rotten == 3 else first + 1, None)]


def test_records_that_nobody_owns_are_put_aside(tmp_path: Path) -> None:
    """A run none of whose segments says whose it is: kept for a person while it holds records, deleted when it is empty."""
    append(family(tmp_path / "f"), record(1))
    (path,) = tmp_path.rglob("*.seg")
    data = path.read_bytes()
    path.write_bytes(b"\0" * 16 + data[16:])
    other = FamilySpool(tmp_path / "f", Family.TRADES, LIMITS)
    (said,) = other.find()
    assert "records" in said
    (aside,) = tmp_path.rglob("*.seg")
    assert aside.parent.name.startswith("refused-")
    empty = tmp_path / "f" / "00000000000000000009-x"
    empty.mkdir()
    (empty / "00000000000000000001.seg").write_bytes(data[:10])
    assert FamilySpool(tmp_path / "f", Family.TRADES, LIMITS).find() == []
    assert not empty.exists()


def test_a_segment_that_cannot_be_opened_any_more_is_given_up_once(tmp_path: Path) -> None:
    """Behind it there is nothing, and no further loss."""
    append(family(tmp_path / "f"), record(1), record(2))
    (run,) = family(tmp_path / "f").inherited
    assert numbers(run.read(1)) == [1]
    next(tmp_path.rglob("*.seg")).unlink()
    with pytest.raises(FileNotFoundError):
        run.read(1)
    assert run.skip() == [Lost(2, None, None)]
    assert run.read(1) == []


def test_its_size_is_told_while_segments_come_and_go(tmp_path: Path) -> None:
    """Another thread adds and removes them: who asks for the size meanwhile gets one."""
    append(family(tmp_path / "f"), record(1), record(2))
    (run,) = family(tmp_path / "f").inherited

    class Restless(spool_reader.Segment):
        @property
        def size(self) -> int:
            run._segments.append(self)
            return 7

        @size.setter
        def size(self, _: int) -> None: ...

    run._segments.append(Restless(tmp_path, 3, 7))
    assert run.size_bytes == run._segments[0].size + 7


def test_what_may_survive_a_power_cut_has_a_name_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every directory in which something new stands is waited for; with `never` none is."""
    waited: set[Path] = set()

    def sync(path: Path) -> None:
        waited.add(path.relative_to(tmp_path))

    for module in (spool_module, spool_run, spool_notes):
        monkeypatch.setattr(module, "sync_directory", sync)
    policies: tuple[spool_module.FsyncPolicy, ...] = ("never", "always")
    for policy in policies:
        assert not waited
        spool = Spool(tmp_path / policy / "s", SpoolLimits(1 << 30, 0, policy))
        assert spool.open() == []
        trades = spool.families[Family.TRADES]
        append(trades, record(1))
        run = trades.run
        assert run is not None
        run.release(Cursor(1, LANE, 1), lambda: b"later", delete=False, sync=trades.syncs)
        spool.close()
    base = Path("always")
    (segment,) = (tmp_path / base).rglob("*.seg")
    assert waited == {base, base / "s", base / "s" / "trades", segment.parent.relative_to(tmp_path)}
