"""Writes, reads, lists and removes one small object where the archive lies."""

import asyncio
from collections.abc import Sequence
from typing import Any

from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore
from services.doctor.findings import Finding, fail, ok

CHECK = "bucket"
FOLDER = "doctor"
ADVICE = (
    "the identity needs s3:PutObject, s3:GetObject, s3:DeleteObject on the prefix and s3:ListBucket on the bucket;"
    " check region and endpoint too"
)


async def check_bucket(root: str, endpoint: str, now: int) -> Sequence[Finding]:
    """Try the store with the credentials that AWS's own clients would use here."""
    return [await asyncio.to_thread(_try, root, endpoint, now)]


def _try(root: str, endpoint: str, now: int) -> Finding:
    options: dict[str, Any] = {"endpoint_url": endpoint} if endpoint else {}
    key = f"{FOLDER}/{now}"
    try:
        store = ObjectStore(root, options)
        # Putting reads it back and compares.
        store.put_small(key, f"kalshi-data doctor {now}\n".encode())
        try:
            listed = key in store.names(FOLDER)
        finally:
            store.forget(key)
    except ArchiveError as error:
        return fail(CHECK, str(error), ADVICE)
    if not listed:
        return fail(CHECK, f"{root}: what was written is not listed", ADVICE)
    return ok(CHECK, f"{root}: written, read back, listed, removed")
