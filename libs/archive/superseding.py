"""Two histories of one window: what production does not know is set aside, so that a reader never meets both.

An archiver that ended between its put and its record, and a production that was restored to an earlier moment, leave
objects that production does not know, and exports the same rows again under other names. A reader of the bucket could
not tell the two apart. So before a window gets another object, whatever stands there unrecorded is set aside: the object
under a name that no pattern `*.parquet` meets, with a note beside it. Nothing is deleted: these may be the only copies of
rows that production lost.
"""

from collections.abc import Collection

import msgspec

from libs.archive.keys import ObjectKey, Window, key_of
from libs.archive.manifest import (
    Manifest,
    Superseded,
    decode_manifest,
    decode_superseded,
    encode_superseded,
)
from libs.archive.objects import ObjectStore


def unrecorded(
    store: ObjectStore, table: str, window: Window, recorded: Collection[str]
) -> list[ObjectKey]:
    """Return the objects and manifests of a window that are not among the recorded objects' names, in order.

    Raises:
        ArchiveError: the store is away.
    """
    folder = ObjectKey(table, window, 0, 0).folder
    found = {key for name in store.names(folder) if (key := key_of(name)) is not None}
    return sorted(
        (k for k in found if (k.table, k.window) == (table, window) and str(k) not in recorded),
        key=str,
    )


def set_aside(store: ObjectStore, key: ObjectKey) -> Superseded:
    """Make what stands under this name no part of the archive, and return the note of it.

    The note is written before the names go, and every step may be repeated after a crash.

    Raises:
        ArchiveError: the store refused or is away.
    """
    there = set(store.names(key.folder))
    has_object, has_manifest = str(key) in there, key.manifest in there
    manifest = _read_manifest(store, key) if has_manifest else None
    if has_object:
        sha256, size = store.sha256(str(key)), store.size(str(key))
    else:
        sha256 = manifest.sha256 if manifest is not None else "0" * 64
        size = 0
    name = key.aside(sha256)
    # An earlier attempt may have ended after its note, when the manifest was gone already.
    note = _read_note(store, f"{name}.json") if f"{name}.json" in there else None
    if note is None:
        note = Superseded(
            was=str(key), object=name if has_object else None, bytes=size, sha256=sha256, manifest=manifest
        )  # fmt: skip
        store.put_small(f"{name}.json", encode_superseded(note))
    if has_manifest:
        store.forget(key.manifest)
    if has_object:
        store.move(str(key), name, sha256)
    return note


def _read_note(store: ObjectStore, name: str) -> Superseded | None:
    try:
        return decode_superseded(store.get(name))
    except msgspec.DecodeError:
        return None


def _read_manifest(store: ObjectStore, key: ObjectKey) -> Manifest | None:
    """None when it cannot be read as one: half of it was written."""
    try:
        return decode_manifest(store.get(key.manifest))
    except msgspec.DecodeError:
        return None
