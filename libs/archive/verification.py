"""Does a bucket hold what its manifests say? Answered from the bucket alone, object by object, in bounded memory."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from libs.archive.catalogue import Catalogue, Fault
from libs.archive.inspection import inspect_object, sort_columns
from libs.archive.manifest import Manifest
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import GATHERER_TABLES, Table


@dataclass(frozen=True, slots=True)
class Checked:
    """One object: its name, its bytes, what is wrong with it, the numbers of gatherers in its rows (None: not read)."""

    object: str
    bytes: int
    faults: tuple[Fault, ...]
    gatherers: frozenset[int] | None = None


def verify_objects(
    store: ObjectStore, catalogue: Catalogue, work_dir: str = ""
) -> Iterator[Checked]:
    """Read every object of the catalogue, and what was set aside, and yield what was found, object by object.

    Args:
        work_dir: folder for copies, which hold one window; empty: the system's.

    Raises:
        ArchiveError: the store is away.
    """
    missing = {fault.object for fault in catalogue.faults if fault.field == "object"}
    for (table, _), manifests in catalogue.windows():
        there = [manifest for manifest in manifests if manifest.object not in missing]
        with tempfile.TemporaryDirectory(prefix="kalshi-data-", dir=work_dir or None) as folder:
            yield from verify_window(store, table, there, Path(folder))
    for _, note in catalogue.superseded:
        if note.object is not None and note.object not in missing:
            found = store.sha256(note.object)
            yield Checked(
                note.object, note.bytes, tuple(_sha_faults(note.object, note.sha256, found))
            )


def verify_window(
    store: ObjectStore, table_name: str, manifests: Sequence[Manifest], folder: Path
) -> Iterator[Checked]:
    """Check the objects of one window, each by itself and the later ones against the earlier ones.

    Sound ones stay in the folder, named by their supplement. Raises ArchiveError when the store is away.
    """
    table = GATHERER_TABLES.get(table_name)
    sound: list[Path] = []
    for manifest in manifests:
        path = copy_path(folder, manifest)
        faults = list(
            _sha_faults(manifest.object, manifest.sha256, store.download(manifest.object, path))
        )
        size = path.stat().st_size
        if size != manifest.bytes:
            faults.append(Fault(manifest.object, "bytes", f"{manifest.bytes}, found {size}"))
        numbers = None
        if table is None:
            faults.append(Fault(manifest.object, "table", f"there is no table {table_name}"))
        elif not faults:
            inspected = inspect_object(table, path, manifest)
            faults, numbers = inspected.faults, frozenset(inspected.gatherers)
            if not faults:
                faults += list(_doubled(table, path, sound, manifest))
                sound.append(path)
        yield Checked(manifest.object, size, tuple(faults), numbers)


def copy_path(folder: Path, manifest: Manifest) -> Path:
    """Where verify_window leaves a copy of an object."""
    return folder / f"{manifest.supplement}-{manifest.merge_to}.parquet"


def _sha_faults(name: str, said: str, found: str) -> Iterator[Fault]:
    if said != found:
        yield Fault(name, "sha256", f"the manifest says {said}, its bytes have {found}")


def _doubled(
    table: Table, path: Path, earlier: Sequence[Path], manifest: Manifest
) -> Iterator[Fault]:
    """Name a key that an earlier object of the window has too; the first one is enough."""
    key = list(sort_columns(table))
    for other in earlier:
        shared = shared_key(path, other, key, table.time_column)
        if shared is not None:
            yield Fault(manifest.object, "key", f"{shared} is in {other.stem} of this window too")
            return


def shared_key(one: Path, other: Path, key: list[str], time: str) -> tuple[Any, ...] | None:
    """Return a key that both objects hold; row groups whose ranges do not meet are not read."""
    with pyarrow.parquet.ParquetFile(one) as left, pyarrow.parquet.ParquetFile(other) as right:
        spans = [_span(right, number, key[0]) for number in range(right.num_row_groups)]
        for number in range(left.num_row_groups):
            mine, rows = _span(left, number, key[0]), left.read_row_group(number, columns=key)
            keys: set[tuple[Any, ...]] | None = None
            for there, span in enumerate(spans):
                if not _meet(mine, span):
                    continue
                near = _near(right.read_row_group(there, columns=key), rows, (key[0], time))
                if near.num_rows:
                    keys = keys or set(_tuples(rows))
                    shared = next((k for k in _tuples(near) if k in keys), None)
                    if shared is not None:
                        return shared
    return None


def _near(rows: pa.Table, others: pa.Table, columns: tuple[str, str]) -> pa.Table:
    """Keep the rows whose values in these columns occur in the others', so that few are compared one by one."""
    for name in columns:
        # value_set is an option the stubs do not know.
        known: Any = pc.unique(others.column(name))
        rows = rows.filter(pc.is_in(rows.column(name), value_set=known))
    return rows


def _tuples(rows: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _span(file: pyarrow.parquet.ParquetFile, number: int, name: str) -> tuple[Any, Any] | None:
    """Least and largest value of a column in a row group; None when it is not known for every row."""
    place = file.schema_arrow.names.index(name)
    statistics = file.metadata.row_group(number).column(place).statistics
    if statistics is None or not statistics.has_min_max or statistics.null_count:
        return None
    return statistics.min, statistics.max


def _meet(one: tuple[Any, Any] | None, other: tuple[Any, Any] | None) -> bool:
    return one is None or other is None or bool(one[0] <= other[1] and other[0] <= one[1])
