"""The object store: a local folder or an S3 bucket through fsspec. What is put is read back and compared."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import fsspec

from libs.archive.errors import ArchiveError, ObjectDiffers

CHUNK_BYTES = 8 << 20

Options: TypeAlias = Mapping[str, Any]


class ObjectStore:
    """Objects under one root: "s3://bucket/prefix" or a folder's path. Blocking: call it in a thread.

    Args:
        root: where the archive lies.
        options: passed to fsspec (S3: key, secret, endpoint_url, client_kwargs ...), or what gives those of the moment, so
            that a rotated key needs no restart; nothing for a folder.
    """

    def __init__(self, root: str, options: Options | Callable[[], Options] | None = None) -> None:
        is_local = "://" not in root
        self._given = root
        self._ask: Callable[[], Options] = options if callable(options) else lambda: options or {}
        self._options: dict[str, Any] = {}
        self._is_local = is_local
        self._root = ""
        self._connect({"auto_mkdir": True} if is_local else dict(self._ask()))
        self._faults = (OSError,) if is_local else _remote_faults()

    def _connect(self, options: dict[str, Any]) -> None:
        self._fs, path = fsspec.core.url_to_fs(self._given, **options)
        self._options, self._root = options, str(path).rstrip("/")

    @property
    def root(self) -> str:
        """Where the archive lies, as the store names it."""
        return self._root

    def put(self, key: str, source: Path, sha256: str) -> None:
        """Put a file under key, whole or not at all, and read it back.

        Raises:
            ObjectDiffers: what was read back has another hash.
            ArchiveError: the store refused or is away.
        """
        path = self._path(key)
        with self._mapped(path, "written"):
            if self._is_local:
                self._fs.put_file(str(source), path + ".part")
                self._fs.mv(path + ".part", path)
            else:
                self._fs.put_file(str(source), path)
        found = self.sha256(key)
        if found != sha256:
            raise ObjectDiffers(f"{path} was written with sha256 {sha256} and read back as {found}")

    def put_small(self, key: str, data: bytes) -> None:
        """Put a few bytes under key and read them back; errors as of put."""
        path = self._path(key)
        with self._mapped(path, "written"):
            self._fs.pipe_file(path, data)
        if self.get(key) != data:
            raise ObjectDiffers(f"{path} was read back with other bytes")

    def sha256(self, key: str) -> str:
        """Read the whole object and return the hex digest of its bytes; ArchiveError as of get."""
        return self.download(key, None)

    def download(self, key: str, target: Path | None) -> str:
        """Copy an object into a file, chunk by chunk, and return the hex digest of its bytes; ArchiveError as of get."""
        path, digest = self._path(key), hashlib.sha256()
        with ExitStack() as stack:
            stack.enter_context(self._mapped(path, "read"))
            source = stack.enter_context(self._fs.open(path, "rb"))
            copy = stack.enter_context(target.open("wb")) if target is not None else None
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                if copy is not None:
                    copy.write(chunk)
        return digest.hexdigest()

    def size(self, key: str) -> int:
        """Return the bytes of an object; ArchiveError as of get."""
        with self._mapped(self._path(key), "read"):
            return int(self._fs.size(self._path(key)))

    def move(self, key: str, to: str, sha256: str) -> None:
        """Give an object another name: it is copied, the copy is read back, then the old name goes.

        A crash in between leaves both names; moving again ends it.

        Raises:
            ObjectDiffers: the copy has another hash; the old name stays.
            ArchiveError: the store refused or is away.
        """
        with self._mapped(self._path(to), "written"):
            self._fs.cp_file(self._path(key), self._path(to))
        found = self.sha256(to)
        if found != sha256:
            raise ObjectDiffers(f"{to} was copied with sha256 {sha256} and read back as {found}")
        self.forget(key)

    def forget(self, key: str) -> None:
        """Take away a name whose content stands under another one; errors as of get."""
        with self._mapped(self._path(key), "taken away"):
            self._fs.rm_file(self._path(key))

    def get(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            ArchiveError: it is not there, or the store refused or is away.
        """
        path = self._path(key)
        with self._mapped(path, "read"):
            return bytes(self._fs.cat_file(path))

    def get_all(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of many small objects, from a bucket side by side; errors as of get."""
        paths = {self._path(key): key for key in keys}
        if not paths:
            return {}
        with self._mapped(self._root, "read"):
            found = self._fs.cat(list(paths), recursive=False)
        if isinstance(found, bytes):
            return {keys[0]: found}
        return {paths[str(path)]: bytes(data) for path, data in found.items()}

    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of all objects under a folder (all of the store by default), in order; ArchiveError when the store is away."""
        base = self._path(prefix).rstrip("/") if prefix else self._root
        with self._mapped(base, "listed"):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(base)
            except FileNotFoundError:
                return
        for path in sorted(found):
            yield str(path).removeprefix(self._root + "/")

    @contextmanager
    def _mapped(self, path: str, done: str) -> Iterator[None]:
        """Do something with the store as who we are now; its errors become ours."""
        if not self._is_local and (options := dict(self._ask())) != self._options:
            self._connect(options)
        try:
            yield
        except self._faults as error:
            text = f"{type(error).__name__}: {error}"
            raise ArchiveError(f"{path} could not be {done}: {text}") from error

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


def _remote_faults() -> tuple[type[Exception], ...]:
    """What S3's client raises when S3 is away or refuses: few of them are OSErrors; s3fs names those of the HTTP client."""
    # Imported only for a bucket: they take a second, and a folder needs none of them.
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    from s3fs.core import S3_RETRYABLE_ERRORS

    return (OSError, BotoCoreError, ClientError, *S3_RETRYABLE_ERRORS)
