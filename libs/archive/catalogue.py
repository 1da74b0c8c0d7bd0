"""What a bucket says of itself: its manifests, what was set aside, and where the names alone do not fit together.

Only names and manifests are read here; whether objects hold what their manifests say is verification.py's.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Final

import msgspec

from libs.archive.keys import (
    BIGINT_MAX,
    BIGINT_MIN,
    MANIFEST,
    PARQUET,
    SUPERSEDED,
    ObjectKey,
    Window,
    key_of,
)
from libs.archive.manifest import Manifest, Superseded, decode_manifest, decode_superseded
from libs.archive.objects import ObjectStore
from libs.archive.trial import is_of_trial

MANIFESTS_AT_ONCE: Final = 256
NOTE: Final = f"{SUPERSEDED}.json"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: the name it is about, what of it, and how."""

    object: str
    field: str
    detail: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Part of an archive: some tables (none: all), and the windows that touch [start, end), microseconds."""

    tables: Collection[str] = ()
    start: int = BIGINT_MIN
    end: int = BIGINT_MAX

    @property
    def is_all(self) -> bool:
        """True when nothing is left out."""
        return self == Selection()

    def has(self, table: str, window: Window) -> bool:
        """True when the window is of this part."""
        if self.tables and table not in self.tables:
            return False
        return window.start < self.end and self.start <= window.last


@dataclass(slots=True)
class Catalogue:
    """Manifests in the order of table, window and supplement; notes of what was set aside; faults of names."""

    manifests: list[Manifest] = field(default_factory=list)
    superseded: list[tuple[str, Superseded]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def windows(self) -> Iterator[tuple[tuple[str, Window], list[Manifest]]]:
        """Yield (table, window) with the manifests of its supplements."""
        for place, manifests in groupby(self.manifests, key=_place):
            yield place, list(manifests)


def _place(manifest: Manifest) -> tuple[str, Window]:
    return manifest.table, Window(manifest.window_from, manifest.window_to)


def read_catalogue(
    store: ObjectStore,
    selection: Selection | None = None,
    on_read: Callable[[int, int], None] = lambda _done, _all: None,
) -> Catalogue:
    """Read the manifests of an archive, or of a part of it.

    Args:
        on_read: hears how many manifests were read, of how many.

    Raises:
        ArchiveError: the store is away.
    """
    part = selection or Selection()
    catalogue = Catalogue()
    names = set(_names(store, part))
    wanted = {
        name: key for name in names if (key := _key(name)) and part.has(key.table, key.window)
    }
    manifests = sorted(name for name in wanted if name.endswith(MANIFEST))
    done = 0
    for some in _batches(manifests):
        for name, data in store.get_all(some).items():
            _take(catalogue, name, wanted[name], data)
        done += len(some)
        on_read(done, len(manifests))
    catalogue.manifests.sort(key=lambda m: (m.table, m.window_from, m.window_to, m.supplement))
    _match(catalogue, names, set(wanted))
    _read_notes(catalogue, store, names, set(wanted))
    if part.is_all:
        for name in sorted(names - set(wanted)):
            catalogue.faults.append(Fault(name, "name", "not a name of the archive"))
    catalogue.faults += structure_faults(catalogue)
    return catalogue


def _names(store: ObjectStore, part: Selection) -> Iterator[str]:
    if not part.tables:
        yield from (name for name in store.names() if not is_of_trial(name))
    for table in part.tables:
        yield from store.names(table)


def _key(name: str) -> ObjectKey | None:
    """The object a name belongs to: its own, its manifest's, or that of what was set aside."""
    stem = name.removesuffix(".json").removesuffix(SUPERSEDED)
    if stem != name and not name.endswith(MANIFEST):
        return key_of(stem.rpartition("-")[0] + PARQUET)
    return key_of(name)


def _take(catalogue: Catalogue, name: str, key: ObjectKey, data: bytes) -> None:
    try:
        manifest = decode_manifest(data)
    except msgspec.DecodeError as error:
        catalogue.faults.append(Fault(name, "manifest", f"cannot be read: {error}"))
        return
    window = Window(manifest.window_from, manifest.window_to)
    said = ObjectKey(manifest.table, window, manifest.supplement, manifest.merge_to)
    if said != key or manifest.object != str(key):
        detail = f"speaks of {manifest.object} ({said}), its name of {key}"
        catalogue.faults.append(Fault(name, "manifest", detail))
        return
    catalogue.manifests.append(manifest)


def _match(catalogue: Catalogue, names: set[str], wanted: set[str]) -> None:
    """Hold objects and manifests against each other."""
    for name in sorted(wanted):
        if name.endswith(PARQUET) and name.removesuffix(PARQUET) + MANIFEST not in names:
            catalogue.faults.append(Fault(name, "orphan", "no manifest names this object"))
    for manifest in catalogue.manifests:
        if manifest.object not in names:
            catalogue.faults.append(
                Fault(manifest.object, "object", "there is a manifest, no object")
            )


def _read_notes(
    catalogue: Catalogue, store: ObjectStore, names: set[str], wanted: set[str]
) -> None:
    notes = sorted(name for name in wanted if name.endswith(NOTE))
    for some in _batches(notes):
        for name, data in store.get_all(some).items():
            try:
                note = decode_superseded(data)
            except msgspec.DecodeError as error:
                catalogue.faults.append(Fault(name, "note", f"cannot be read: {error}"))
                continue
            catalogue.superseded.append((name, note))
            if note.object is not None and note.object not in names:
                catalogue.faults.append(Fault(note.object, "object", "there is a note, no object"))
    named = {f"{note.object}" for _, note in catalogue.superseded}
    for name in sorted(wanted):
        if name.endswith(SUPERSEDED) and name not in named:
            catalogue.faults.append(Fault(name, "note", "no note names this object"))


def _batches(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), MANIFESTS_AT_ONCE):
        yield names[start : start + MANIFESTS_AT_ONCE]


def structure_faults(catalogue: Catalogue) -> list[Fault]:
    """Say where supplements have holes, merges do not follow each other, or windows of a table overlap."""
    faults: list[Fault] = []
    last: tuple[str, Window] | None = None
    for (table, window), manifests in catalogue.windows():
        if last is not None and last[0] == table and window.start < last[1].end:
            detail = f"its window begins at {window.start}, the one before ends at {last[1].end}"
            faults.append(Fault(manifests[0].object, "window", detail))
        if last is None or last[0] != table or window.end > last[1].end:
            last = (table, window)
        faults += _chain_faults(manifests)
    return faults


def _chain_faults(manifests: Iterable[Manifest]) -> Iterator[Fault]:
    """Of one window: supplements 0, 1, 2 ..., each beginning at the merge at which the one before ends."""
    ordered = list(manifests)
    first = ordered[0]
    if first.supplement != 0:
        yield Fault(first.object, "supplement", f"{first.supplement} is the first there is, not 0")
    elif first.merge_from != 0:
        yield Fault(first.object, "merge_from", f"{first.merge_from}, the first begins at 0")
    for before, after in pairwise(ordered):
        if after.supplement != before.supplement + 1:
            detail = f"{after.supplement} comes after {before.supplement}"
            yield Fault(after.object, "supplement", detail)
        elif after.merge_from != before.merge_to:
            detail = f"{after.merge_from}, the supplement before ends at {before.merge_to}"
            yield Fault(after.object, "merge_from", detail)
    for manifest in ordered:
        if manifest.merge_to <= manifest.merge_from:
            yield Fault(manifest.object, "merge_to", f"{manifest.merge_to} is not above merge_from")
