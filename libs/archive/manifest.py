"""The manifest: the record that a window was archived, beside the object and as a row in production."""

import msgspec


class Gatherer(msgspec.Struct, frozen=True):
    """What a number in the column `gatherer` means: the identity of a gatherer's database, and its zone's name."""

    gatherer: int
    identity: str
    zone: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One object: what it holds and how to know it again. Times are microseconds; merge_from is exclusive."""

    table: str
    window_from: int
    window_to: int
    supplement: int
    object: str
    rows: int
    bytes: int
    sha256: str
    time_min: int | None
    time_max: int | None
    ticker_min: str | None
    ticker_max: str | None
    merge_from: int
    merge_to: int
    schema_version: int
    pyarrow_version: str
    gatherers: tuple[Gatherer, ...] = ()
    """Every gatherer that production knew when the object was made; a manifest of before this was written has none."""


class Superseded(msgspec.Struct, frozen=True, kw_only=True):
    """Note beside an object that is no part of the archive, because production does not know it.

    was: the name it had. object: the name it has now, None when there was only a manifest. manifest: what it was
    recorded with, None when there was none.
    """

    was: str
    object: str | None
    bytes: int
    sha256: str
    manifest: Manifest | None


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode as JSON, the same bytes for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Decode what encode_manifest wrote.

    Raises:
        msgspec.ValidationError: a field is missing or of another type.
    """
    return msgspec.json.decode(data, type=Manifest)


def encode_superseded(note: Superseded) -> bytes:
    """Encode as JSON, the same bytes for the same note."""
    return msgspec.json.format(msgspec.json.encode(note, order="sorted"), indent=1) + b"\n"


def decode_superseded(data: bytes) -> Superseded:
    """Decode what encode_superseded wrote.

    Raises:
        msgspec.ValidationError: a field is missing or of another type.
    """
    return msgspec.json.decode(data, type=Superseded)
