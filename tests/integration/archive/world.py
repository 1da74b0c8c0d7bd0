"""Production with a few deltas, an archiver over it, an S3 server on loopback, and what the archive then holds."""

import asyncio
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet
from moto.server import ThreadedMotoServer

from libs.archive.objects import ObjectStore
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.marketdata.units import SECOND
from libs.runtime.clock import ManualClock
from libs.runtime.health import HealthState
from libs.runtime.secret import Secret
from libs.runtime.service import Runtime
from libs.store.leases import Lease
from libs.store.pool import AnyConnection, Pool, Target, connect
from libs.telemetry.metrics import Metrics
from services.archiver.settings import ArchiverSettings, S3Settings
from services.archiver.tasks import Archiver

WIDTH = 10 * SECOND


class Production:
    """Merges deltas as the deduplicator would: rows carry the number of their transaction."""

    def __init__(self, target: Target, now: int) -> None:
        self._target = target
        self._merge_no = 0
        self.start = now - now % WIDTH - 60 * SECOND

    async def merge(self, *moments: int, ticker: str = "A") -> None:
        """Merge one delta at each moment (microseconds after `start`), in one transaction."""
        self._merge_no += 1
        async with connect(self._target) as conn, conn.transaction():
            await conn.executemany(
                "INSERT INTO orderbook_deltas (exchange_ts, received_at, size_delta, seq, price, occurrence, sid, side,"
                " connection, ticker, gatherer, merge_no) VALUES ($1, $1, 5, 1, 52000, $2, 1, true, $3, $4, 1, $5)",
                [
                    (self.start + m, i, uuid.UUID(int=1), ticker, self._merge_no)
                    for i, m in enumerate(moments, 1)
                ],
            )
            await conn.execute(
                "INSERT INTO writer_lease (epoch, holder, expires_at, merge_no) VALUES (1, $1, now(), $2)"
                " ON CONFLICT (one) DO UPDATE SET merge_no = excluded.merge_no",
                uuid.UUID(int=2), self._merge_no,
            )  # fmt: skip

    async def listen(self, zone: str, until: int) -> None:
        """Merge a gatherer's claim to have heard everything up to the moment."""
        async with connect(self._target) as conn:
            number = await conn.fetchval(
                "INSERT INTO gatherers (identity, zone) VALUES (gen_random_uuid(), $1) RETURNING gatherer",
                zone,
            )
            await conn.execute(
                "INSERT INTO listen_ranges (received_at, seq_from, seq_to, sent_from, sent_to, margin, sid, row_no,"
                " connection, channel, gatherer, merge_no, lane, batch_no)"
                " VALUES ($1, 1, 2, $1, $1, 0, 1, 1, $2, 'trade', $3, 1, $2, 1)",
                self.start + until, uuid.UUID(int=3), number,
            )  # fmt: skip


class OwnLease(Lease):
    """A lease nobody else wants."""

    async def renew(self) -> bool:
        return True

    async def holds(self, conn: AnyConnection) -> bool:
        return True


def own_lease(pool: Pool) -> Lease:
    return OwnLease(pool, "x", uuid.uuid4(), 9.0)


def archiver(pool: Pool, store: ObjectStore, now: int, **settings: Any) -> Archiver:
    settings = {"window_s": 10, "close_after_s": 3600, **settings}
    own = ArchiverSettings(root="unused", tables=(ORDERBOOK_DELTAS.name,), **settings)
    clock, metrics, lease = ManualClock(now), Metrics(""), own_lease(pool)
    runtime = Runtime(clock, asyncio.Event(), HealthState("archiver", "", clock, metrics), metrics)
    return Archiver(own, pool, store, runtime, lease)


async def manifests(pool: Pool) -> list[tuple[int, int, int, int]]:
    rows = await pool.fetch(
        "SELECT supplement, rows, merge_from, merge_to FROM archive_manifests ORDER BY window_from, supplement"
    )
    return [tuple(row) for row in rows]


def rows_of(store: ObjectStore, tmp_path: Path, key: str) -> list[tuple[str, int, int]]:
    file = tmp_path / "read.parquet"
    file.write_bytes(store.get(key))
    table = pyarrow.parquet.read_table(file)
    return [(r["ticker"], r["exchange_ts"], r["merge_no"]) for r in table.to_pylist()]


class S3Server:
    """A real S3 server with one bucket `archive`; it can go and come back with what it held."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self._port = port
        self.settings = S3Settings(
            f"http://{host}:{port}", "us-east-1", Secret("key"), Secret("secret")
        )
        # What the process's servers hold is one and the same: begin with nothing of another test's.
        for method, path in (("POST", "moto-api/reset"), ("PUT", "archive")):
            asked = urllib.request.Request(f"{self.settings.endpoint_url}/{path}", method=method)
            urllib.request.urlopen(asked, timeout=10).close()

    def stop(self) -> None:
        """Refuse every connection from now on."""
        self._server.stop()

    def start(self) -> None:
        """Be there again, at the same address."""
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
