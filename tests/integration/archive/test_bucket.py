"""An archiver whose identity may list, but not do the rest: known within seconds of its start, from a real S3 server."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.archive.objects import ObjectStore
from libs.archive.trial import WELL
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.secret import Secret
from libs.runtime.sections import StoreSettings
from libs.runtime.service import Runtime, orderly
from libs.store.pool import Target
from libs.telemetry.metrics import Metrics
from services.archiver.service import run
from services.archiver.settings import ArchiverSettings, Settings, storage_options
from tests.integration.archive.world import S3Server

ROOT = "s3://archive/kalshi"


@pytest.fixture
def s3() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


def forbid(server: S3Server, action: str) -> None:
    """Let nobody do this with the bucket's objects; with nothing, everything is allowed again."""
    statement = {
        "Effect": "Deny", "Principal": "*", "Action": action, "Resource": "arn:aws:s3:::archive/*"
    }  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()
    asked = urllib.request.Request(
        f"{server.settings.endpoint_url}/archive?policy",
        policy if action else None,
        {"Content-Type": "application/json"},
        method="PUT" if action else "DELETE",
    )
    urllib.request.urlopen(asked, timeout=10).close()


@asynccontextmanager
async def running(target: Target, server: S3Server) -> AsyncIterator[Runtime]:
    """The archiver as a process runs it; it is stopped in order, or this raises what it ends with."""
    store = StoreSettings(
        database=target.database, user="kd_archiver", password=Secret(target.password), host=target.host,
        port=target.port,
    )  # fmt: skip
    own = ArchiverSettings(root=ROOT, poll_s=0.05, s3=server.settings)
    clock, metrics = SystemClock(), Metrics()
    health = HealthState("archiver", "", clock, metrics)
    runtime = Runtime(clock, asyncio.Event(), health, metrics)
    work = orderly(run(Settings(archiver=own, production=store), runtime), runtime.stop)
    task = asyncio.create_task(work)
    try:
        yield runtime
        runtime.stop.set()
        async with asyncio.timeout(60):
            await task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def bucket(runtime: Runtime, part: str) -> dict[str, Any]:
    """Wait until /health says this of the bucket, and a round is through; return the document."""
    async with asyncio.timeout(60):
        while True:
            found = runtime.health.document()
            if part in str(found.get("bucket")) and "error" in found:
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("s3:PutObject", "could not be written"),
        ("s3:GetObject", "could not be read"),
        ("s3:DeleteObject", "could not be taken away"),
    ],
)
async def test_a_bucket_that_only_lists_is_told_and_tried_again(
    production_db: Target, s3: S3Server, action: str, said: str
) -> None:
    """Rounds have nothing to write, list, and are well: readiness is theirs. Allowed later, it is well by itself."""
    forbid(s3, action)
    store = ObjectStore(ROOT, storage_options(s3.settings))
    async with running(production_db, s3) as runtime:
        found = await bucket(runtime, said)
        assert "archive/kalshi/_trial/archiver" in found["bucket"]
        assert "PermissionError" in found["bucket"]
        assert (found["ready"], found["error"]) == (True, "")
        forbid(s3, "")
        found = await bucket(runtime, WELL)
        assert (found["ready"], found["error"]) == (True, "")
    assert await asyncio.to_thread(lambda: list(store.names())) == []


async def test_a_bucket_that_is_away_stops_no_archiver(production_db: Target, s3: S3Server) -> None:
    """It goes on trying, and is well when the bucket is back; it ends in order also while it is away."""
    s3.stop()
    async with running(production_db, s3) as runtime:
        await bucket(runtime, "could not be written")
        s3.start()
        assert (await bucket(runtime, WELL))["bucket"] == WELL
    s3.stop()
    async with running(production_db, s3) as runtime:
        await bucket(runtime, "could not be written")
    s3.start()
