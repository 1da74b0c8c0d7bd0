"""Every service as its pod runs it: a read-only root, a user without a name, Secrets as files, everything starting at once.

Needs root and `unshare`; `make soaks` runs it. What a service writes anywhere but in /tmp and its own volumes fails there.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.exchange.keyfiles import make_key_pair
from libs.runtime.health import fetch_health
from libs.store.pool import connect
from services.local.ports import free_port
from services.local.postgres import EmbeddedPostgres
from tests.support.postgres import run, scratch_directory, server_programs

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and unshare"
    ),
]
ROOT = Path(__file__).parents[3]
UID = 10001
SLOTS = {"orderbook": 4, "ticker": 1, "trade": 1, "lifecycle": 1, "connections_max": 20}
# Everything that is mounted becomes read-only, but for the pod's own volume, which is a mount of its own by then. The
# interpreter may lie in root's home, where nobody else gets.
POD = """
set -e
mount --bind "$VOLUME" "$VOLUME"
mount --bind "$PREFIX" "$PYTHON"
findmnt -rn -o TARGET,FSTYPE | while read -r target kind; do
    case "$target:$kind" in "$VOLUME":*|/proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$target" ;; esac
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
cd "$CODE"
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all \\
    env -i PATH=/usr/bin:/bin PYTHONPATH="$SITE" LD_LIBRARY_PATH="$PYTHON/lib" HOME=/tmp TMPDIR=/tmp POD_NAME="$POD_NAME" POD_TEMPLATE_HASH=5d4f "$@"
"""


class Pods:
    """The directory that the pods' files lie in, the databases, and what is needed to start one."""

    def __init__(self, directory: Path, server: EmbeddedPostgres) -> None:
        self.directory = directory
        self.server = server
        self.ports: dict[str, int] = {}
        self.children: dict[str, asyncio.subprocess.Process] = {}
        self.exchange = free_port()

    def secret(self, name: str, **items: str) -> str:
        """Write a Secret's items as a mount with defaultMode 0440 and fsGroup shows them; return its directory."""
        folder = self.directory / "secrets" / name
        folder.mkdir(parents=True)
        for item, text in items.items():
            file = folder / item.replace("_", "-")
            file.write_text(text)
            file.chmod(0o440)
            os.chown(file, 0, UID)
        return str(folder)

    def write(self, name: str, sections: dict[str, Any]) -> Path:
        """Write a configuration file."""
        file = self.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(sections))
        return file

    @asynccontextmanager
    async def run(self, name: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run `kalshi-data ARGUMENTS` as the pod `name` until the block ends; it must then end well."""
        volume = self.directory / "volumes" / name
        volume.mkdir(parents=True, exist_ok=True)
        volume.chmod(0o770)
        os.chown(volume, 0, UID)
        python = self.directory / "python"
        python.mkdir(exist_ok=True)
        self.ports[name] = free_port()
        with (self.directory / f"{name}.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                "unshare", "--mount", "--propagation", "private", "sh", "-c", POD, "pod",
                f"KALSHI_DATA_HEALTH__PORT={self.ports[name]}", "KALSHI_DATA_METRICS__PORT=0",
                f"{python}/bin/python3", "-B", "-m", "services.cli", *arguments,
                env={
                    "PATH": os.environ["PATH"], "VOLUME": str(volume), "CODE": str(ROOT), "POD_NAME": name,
                    "PYTHON": str(python), "PREFIX": sys.base_prefix, "SITE": sysconfig.get_path("purelib"),
                },
                stdout=log, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        self.children[name] = child
        try:
            yield child
            if child.returncode is None:
                child.terminate()
            async with asyncio.timeout(90):
                assert await child.wait() in (0, -signal.SIGKILL), self.log(name)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    def log(self, name: str) -> str:
        """What the pod has said."""
        return (self.directory / f"{name}.log").read_text()

    async def health(self, name: str) -> dict[str, Any]:
        """The pod's /health; empty while it does not answer."""
        try:
            return await fetch_health(self.ports[name])
        except (OSError, ValueError):
            return {}

    async def ready(self, name: str, timeout_s: float = 90.0) -> dict[str, Any]:
        """Wait until the pod is ready; return its /health."""
        try:
            return await self.until(name, lambda document: document.get("ready"), timeout_s)
        except TimeoutError:
            raise AssertionError(f"{name}: {await self.health(name)}\n{self.log(name)}") from None

    async def until(
        self, name: str, holds: Callable[[dict[str, Any]], Any], timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """Ask the pod's /health until something holds of it, and return it."""
        async with asyncio.timeout(timeout_s):
            while True:
                document = await self.health(name)
                if holds(document):
                    return document
                assert self.children[name].returncode in (None, -signal.SIGKILL), self.log(name)
                await asyncio.sleep(0.05)


@pytest.fixture
def pods() -> Iterator[Pods]:
    """Two empty databases on a server; nothing else is made before the pods start."""
    # Not below /tmp, which every pod has of its own.
    directory = Path(tempfile.mkdtemp(prefix="kalshi-data-pods-", dir="/var/tmp"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(
        scratch_directory() / "pods", bin_dir=server_programs(), sync_init=False
    )
    try:
        run(server.start())
        for name in ("zone_a", "production"):
            run(server.create_database(name))
        yield Pods(directory, server)
    finally:
        run(server.kill())
        server.remove()
        shutil.rmtree(directory, ignore_errors=True)


def configure(pods: Pods) -> None:
    """Write every Secret and file as the chart does."""
    master = {"username": "postgres", "password": pods.server.password}
    for name in ("store-superuser", "production-superuser"):
        pods.secret(name, **master)
    for role in ("writer", "reader", "planner", "status", "archiver"):
        pods.secret(f"roles/{role}", username=f"kd_{role}", password=f"{role}-1")
    private, _ = make_key_pair(pods.directory / "key")
    exchange = pods.secret("exchange", api_key_id="key-a\n", private_key=private.read_text())
    common = {"health": {"host": "127.0.0.1"}, "metrics": {"host": "127.0.0.1"}}

    def store(database: str, secret: str) -> dict[str, Any]:
        folder = pods.directory / "secrets" / secret
        return {"port": pods.server.port, "database": database, "user_file": f"{folder}/username", "password_file": f"{folder}/password"}  # fmt: skip

    base = f"127.0.0.1:{pods.exchange}/trade-api"
    volumes = pods.directory / "volumes"
    gatherer = common | {
        "zone": "a",
        "exchange": {
            "environment": "simulator", "rest_url": f"http://{base}/v2", "ws_url": f"ws://{base}/ws/v2",
            "api_key_id_file": f"{exchange}/api-key-id", "private_key_file": f"{exchange}/private-key",
        },
        "store": store("zone_a", "roles/writer"),
        "slots": SLOTS,
        "connector": {
            "shard": "${POD_NAME}", "template_hash": "${POD_TEMPLATE_HASH:-}", "grace_s": 2,
            "state_dir": f"{volumes}/${{POD_NAME}}/spool", "storage_bytes_max": 10**12,
        },
        "poller": {"period_s": 5},
    }  # fmt: skip
    pods.write("gatherer", gatherer)
    pods.write("migrate-a", gatherer | {"store": store("zone_a", "store-superuser")})
    central = common | {
        "gatherers": [{"zone": "a", "store": store("zone_a", "roles/reader")}],
        "production": store("production", "roles/writer"),
        "archiver": {"root": f"{volumes}/archiver/archive", "work_dir": f"{volumes}/archiver", "window_s": 10, "close_after_s": 2, "poll_s": 1},
    }  # fmt: skip
    pods.write("deduplicator", central)
    pods.write("archiver", central | {"production": store("production", "roles/archiver")})
    pods.write("migrate-p", central | {"production": store("production", "production-superuser")})
    key = {
        "key_id_file": f"{exchange}/api-key-id",
        "public_key_file": f"{exchange}/private-key",
        "zone": "a",
    }
    pods.write("simulator", common | {
        "simulator": {"host": "127.0.0.1", "port": pods.exchange, "markets": 40, "rate": 200, "keys": [key], "new_market_every_s": 2},
    })  # fmt: skip


SERVICES = {
    "simulator-0": ("simulator", "simulator"),
    "registry-0": ("registry", "gatherer"),
    "connector-a-7f9c-x2x": ("connector", "gatherer"),
    "poller-0": ("poller", "gatherer"),
    "deduplicator-0": ("deduplicator", "deduplicator"),
    "archiver": ("archiver", "archiver"),
}
CONNECTOR = "connector-a-7f9c-x2x"


async def test_every_service_runs_as_a_pod(pods: Pods) -> None:
    """All start before their roles and schemas are there, wait and say so; migrated, all are ready and rows flow to Parquet.

    The connector's process killed in its container comes back with its own slots; nobody plans meanwhile.
    """
    configure(pods)
    async with AsyncExitStack() as running:
        for name, (service, file) in SERVICES.items():
            config = str(pods.directory / f"{file}.yaml")
            await running.enter_async_context(pods.run(name, "run", service, "--config", config))
        await pods.ready("simulator-0")
        for name in SERVICES.keys() - {"simulator-0"}:
            document = await pods.until(name, lambda d: "waiting for" in d.get("reason", ""))
            assert not document["ready"]
        for name, file in (("migrate-a", "migrate-a"), ("migrate-p", "migrate-p")):
            config, roles = f"{pods.directory}/{file}.yaml", f"{pods.directory}/secrets/roles"
            async with pods.run(name, "migrate", "--config", config, "--roles", roles) as job:
                assert await job.wait() == 0, pods.log(name)
        for name in SERVICES:
            await pods.ready(name)
        await _flows(pods)
        await _killed(pods)
    for name in SERVICES:
        assert "Read-only file system" not in pods.log(name)
        assert "Traceback" not in pods.log(name), pods.log(name)
    archive = pods.directory / "volumes" / "archiver" / "archive"
    assert list(archive.rglob("*.manifest.json"))


async def _flows(pods: Pods) -> None:
    """Wait until facts of both kinds are in production."""
    enough = (
        "SELECT (SELECT count(*) > 4 FROM trades) AND (SELECT count(*) > 500 FROM orderbook_deltas)"
    )
    async with connect(pods.server.target("production")) as conn, asyncio.timeout(60):
        while True:
            if await conn.fetchval(enough):
                return
            await asyncio.sleep(0.2)


async def _killed(pods: Pods) -> None:
    """kill -9 of the container's main process: the kubelet starts it again in the same pod, on the same volume."""
    slots = "SELECT array_agg((slot, shard, epoch)::text ORDER BY slot) FROM slot_assignments"
    async with connect(pods.server.target("zone_a")) as conn:
        before = await conn.fetchval(slots)
        assert len(before) == 7
        instance = await conn.fetchval("SELECT instance FROM shards")
        document = await pods.health(CONNECTOR)
        os.kill(int(document["pid"]), signal.SIGKILL)
        await pods.until(CONNECTOR, lambda document: not document)
        loop = asyncio.get_running_loop()
        began = loop.time()
        config = str(pods.directory / "gatherer.yaml")
        async with pods.run(CONNECTOR, "run", "connector", "--config", config):
            document = await pods.ready(CONNECTOR)
            took = loop.time() - began
            assert await conn.fetchval(slots) == before
            assert await conn.fetchval("SELECT instance FROM shards") != instance
            assert len(document["slots"]) == 7
            heard = [json.loads(line) for line in pods.log(CONNECTOR).splitlines()]
            assert [line["event"] for line in heard].count("slot_taken") == 14
    assert took < 30
