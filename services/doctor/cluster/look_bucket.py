"""Writes, reads, lists and removes one small object where the archive lies."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore
from libs.archive.trial import WELL, try_store
from libs.runtime.secret import Secret
from services.doctor.cluster.judge_services import BUCKET_ADVICE
from services.doctor.findings import Finding, fail, ok

CHECK = "bucket"


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
    try:
        try_store(ObjectStore(bucket.root, bucket.options()), f"doctor-{now}")
    except (OSError, UnicodeDecodeError) as error:
        return fail(CHECK, f"a key cannot be read: {error}", "name the mounted Secret's files")
    except ArchiveError as error:
        return fail(CHECK, str(error), BUCKET_ADVICE)
    return ok(CHECK, f"{bucket.root}: {WELL.removeprefix('ok: ')}")
