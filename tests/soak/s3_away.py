"""S3 is away under load: nothing is recorded as archived, nothing may go; when it is back all of it is archived."""

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from libs.archive.objects import ObjectStore
from libs.archive.parquet import read_rows
from libs.marketdata.tables import GATHERER_TABLES
from libs.store.pool import connect
from services.archiver.settings import storage_options
from services.local.stored import count_rows
from services.local.topology import PRODUCTION, process
from tests.integration.archive.world import S3Server
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground
from tests.soak.merging import CALM_S, OfTheMerge, until_merging

ARCHIVER = "archiver"
ROOT = "s3://archive/kalshi"
WINDOW_S = 10
EXPORTED_S_MAX = 90.0


@dataclass
class S3Away(OfTheMerge):
    """seconds without S3, of a run whose windows are ten seconds wide."""

    name: ClassVar[str] = "s3-away"
    seconds: float = 60.0

    async def begin(self, ground: Ground) -> None:
        self._s3 = S3Server()
        key = self._s3.settings
        archiver = process(
            ARCHIVER, "archiver", ground.run.configs.paths[PRODUCTION],
            KALSHI_DATA_PRODUCTION__USER="kd_archiver",
            KALSHI_DATA_ARCHIVER__ROOT=ROOT,
            KALSHI_DATA_ARCHIVER__S3__ENDPOINT_URL=key.endpoint_url,
            KALSHI_DATA_ARCHIVER__S3__REGION=key.region,
            KALSHI_DATA_ARCHIVER__S3__ACCESS_KEY_ID=key.access_key_id.reveal(),
            KALSHI_DATA_ARCHIVER__S3__SECRET_ACCESS_KEY=key.secret_access_key.reveal(),
            KALSHI_DATA_ARCHIVER__WINDOW_S=str(WINDOW_S),
        )  # fmt: skip
        await ground.run.supervisor.start([archiver])
        await super().begin(ground)

    async def act(self, ground: Ground) -> None:
        await until_merging(ground)
        await ground.until(lambda: _manifests(ground), EXPORTED_S_MAX, "a first window is archived")
        await asyncio.to_thread(self._s3.stop)
        self._said_s = await ground.until(lambda: _says(ground), EXPORTED_S_MAX, "it says so")
        self._before = await _manifests(ground)
        await ground.rest(self.seconds)
        self._after = await _manifests(ground)
        self._said = await _says(ground)
        await asyncio.to_thread(self._s3.start)

        async def archives_again() -> bool:
            return await _manifests(ground) > self._after

        self._back_s = await ground.until(archives_again, EXPORTED_S_MAX, "it archives again")
        await ground.rest(CALM_S)

    async def figures(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        archived = dict.fromkeys(GATHERER_TABLES, 0)
        async with connect(ground.run.target(PRODUCTION)) as conn:
            rows = await count_rows(conn, list(GATHERER_TABLES))
            found = await conn.fetch("select table_name, object from archive_manifests")
        store = ObjectStore(ROOT, storage_options(self._s3.settings))
        for manifest in found:
            data = await asyncio.to_thread(store.get, manifest["object"])
            archived[manifest["table_name"]] += read_rows(data)
        await asyncio.to_thread(self._s3.stop)
        total = f"{sum(archived.values()):,} rows in {len(found):,} objects"
        return [
            Measured("away, and said so after", f"{self.seconds:.0f} s, {self._said_s:.1f} s", "-", True),
            Measured("what it said at the end of it", self._said[:60], "an error", bool(self._said)),
            Measured("objects recorded meanwhile", str(self._after - self._before), "0", self._after == self._before),
            Measured("archiving again after", f"{self._back_s:.1f} s", "-", True),
            Measured("read back from S3", total, f"{sum(rows.values()):,} rows", archived == rows),
        ]  # fmt: skip


async def _manifests(ground: Ground) -> int:
    async with connect(ground.run.target(PRODUCTION)) as conn:
        return int(await conn.fetchval("select count(*) from archive_manifests"))


async def _says(ground: Ground) -> str:
    return str((await ground.run.health(ARCHIVER)).get("error") or "")
