"""The manifest: the record that a window was archived, beside the object and as a row in production."""

import msgspec


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


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode as JSON, the same bytes for the same manifest."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Decode what encode_manifest wrote.

    Raises:
        msgspec.ValidationError: a field is missing or of another type.
    """
    return msgspec.json.decode(data, type=Manifest)
