"""The object store: a local folder or an S3 bucket through fsspec. What is put is read back and compared."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import fsspec

CHUNK_BYTES = 8 << 20


class ArchiveError(Exception):
    """The archive could not be written or read."""

    retryable: ClassVar[bool] = True


class ObjectDiffers(ArchiveError):
    """An object read back is not what was put; it is written again."""


class ObjectStore:
    """Objects under one root: "s3://bucket/prefix" or a folder's path. Blocking: call it in a thread.

    Args:
        root: where the archive lies.
        options: passed to fsspec (S3: key, secret, endpoint_url, client_kwargs ...); empty for a folder.
    """

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        is_local = "://" not in root
        options = {"auto_mkdir": True} if is_local else dict(options or {})
        self._fs, path = fsspec.core.url_to_fs(root, **options)
        self._root = str(path).rstrip("/")
        self._is_local = is_local

    def put(self, key: str, source: Path, sha256: str) -> None:
        """Put a file under key, whole or not at all, and read it back.

        Raises:
            ObjectDiffers: what was read back has another hash.
            ArchiveError: the store refused or is away.
        """
        path = self._path(key)
        try:
            if self._is_local:
                self._fs.put_file(str(source), path + ".part")
                self._fs.mv(path + ".part", path)
            else:
                self._fs.put_file(str(source), path)
        except OSError as error:
            raise ArchiveError(f"{path} could not be written: {error}") from error
        found = self.sha256(key)
        if found != sha256:
            raise ObjectDiffers(f"{path} was written with sha256 {sha256} and read back as {found}")

    def put_small(self, key: str, data: bytes) -> None:
        """Put a few bytes under key and read them back; errors as of put."""
        path = self._path(key)
        try:
            self._fs.pipe_file(path, data)
        except OSError as error:
            raise ArchiveError(f"{path} could not be written: {error}") from error
        if self.get(key) != data:
            raise ObjectDiffers(f"{path} was read back with other bytes")

    def sha256(self, key: str) -> str:
        """Read the whole object and return the hex digest of its bytes."""
        digest = hashlib.sha256()
        try:
            with self._fs.open(self._path(key), "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
        except OSError as error:
            raise ArchiveError(f"{self._path(key)} could not be read: {error}") from error
        return digest.hexdigest()

    def get(self, key: str) -> bytes:
        """Return an object's bytes."""
        try:
            return bytes(self._fs.cat_file(self._path(key)))
        except OSError as error:
            raise ArchiveError(f"{self._path(key)} could not be read: {error}") from error

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of all objects under the prefix, in order."""
        base = self._path(prefix) if prefix else self._root
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(base)
        except FileNotFoundError:
            return
        for path in sorted(found):
            yield str(path).removeprefix(self._root + "/")

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"
