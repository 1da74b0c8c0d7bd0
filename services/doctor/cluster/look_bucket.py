"""Writes, reads, lists and removes one small object where the archive lies."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore
from libs.runtime.secret import Secret
from services.doctor.findings import Finding, fail, ok

CHECK = "bucket"
FOLDER = "doctor"
ADVICE = (
    "the identity needs s3:PutObject, s3:GetObject, s3:DeleteObject on the prefix and s3:ListBucket on the bucket;"
    " check region and endpoint too"
)


class Bucket(NamedTuple):
    """Where, and with which key; what is empty is found as AWS's own clients find it (pod identity, environment)."""

    root: str
    endpoint: str = ""
    access_key_id_file: str = ""
    secret_access_key_file: str = ""

    def options(self) -> dict[str, Any]:
        """Say it as the store does.

        Raises:
            OSError, UnicodeDecodeError: a key's file cannot be read.
        """
        found: dict[str, Any] = {"endpoint_url": self.endpoint} if self.endpoint else {}
        files = {"key": self.access_key_id_file, "secret": self.secret_access_key_file}
        for name, file in files.items():
            if file:
                found[name] = Secret.from_file(Path(file)).reveal()
        return found


async def check_bucket(bucket: Bucket, now: int) -> Sequence[Finding]:
    """Try the store. now: microseconds since the epoch; names the object."""
    return [await asyncio.to_thread(_try, bucket, now)]


def _try(bucket: Bucket, now: int) -> Finding:
    key = f"{FOLDER}/{now}"
    try:
        store = ObjectStore(bucket.root, bucket.options())
        # Putting reads it back and compares.
        store.put_small(key, f"kalshi-data doctor {now}\n".encode())
        try:
            listed = key in store.names(FOLDER)
        finally:
            store.forget(key)
    except (OSError, UnicodeDecodeError) as error:
        return fail(CHECK, f"a key cannot be read: {error}", "name the mounted Secret's files")
    except ArchiveError as error:
        return fail(CHECK, str(error), ADVICE)
    if not listed:
        return fail(CHECK, f"{bucket.root}: what was written is not listed", ADVICE)
    return ok(CHECK, f"{bucket.root}: written, read back, listed, removed")
