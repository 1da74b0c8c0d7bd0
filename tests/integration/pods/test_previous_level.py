"""The code of the previous level on this level's databases: schemas grow one release before what needs them."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from libs.store.pool import Target, connect
from libs.store.schema import LEVELS
from tests.integration.connector.world import Zone, running_zone

ROOT = Path(__file__).parents[3]
PREVIOUS = "c0c2df1a57a86df52c6219d448d30f19e39ddc43"
"""The last commit whose code is of the levels below; to be moved with every new level."""
PREVIOUS_LEVELS = {"gatherer": 4, "production": 3}
PARTS = ("services", "libs", "migrations", "pyproject.toml")
FACTS = "SELECT (SELECT count(*) FROM orderbook_deltas) * (SELECT count(*) FROM trades)"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the code of the previous level."""
    command = ["git", "-C", str(ROOT), "archive", PREVIOUS, *PARTS]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"this checkout has no history back to {PREVIOUS}")
    directory = tmp_path_factory.mktemp("previous")
    subprocess.run(["tar", "-x", "-C", str(directory)], input=found.stdout, check=True)
    return directory


@asynccontextmanager
async def process(code: Path, service: str, config: Path) -> AsyncIterator[None]:
    """Run a service of that code; at the end it is stopped and must end well."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{service}", "--config", str(config), cwd=code,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = asyncio.create_task(child.communicate())
    try:
        yield
    finally:
        if child.returncode is None:
            child.terminate()
        async with asyncio.timeout(60):
            output = (await said)[0].decode()
    assert child.returncode == 0, output


def configure(zone: Zone, production: Target, directory: Path) -> tuple[Path, Path]:
    """Write the two files with nothing in them that the previous level did not know."""
    anywhere: dict[str, object] = {"host": "127.0.0.1", "port": 0}
    common: dict[str, object] = {"health": anywhere, "metrics": anywhere}
    exchange, store = zone.settings.exchange, zone.settings.store

    def database(target: Target, user: str) -> dict[str, object]:
        return {"port": target.port, "database": target.database, "user": user, "password": store.password.reveal()}  # fmt: skip

    files: dict[str, dict[str, object]] = {
        "gatherer": {
            "zone": "a",
            "exchange": {
                name: getattr(exchange, name)
                for name in ("environment", "api_key_id", "private_key_file", "rest_url", "ws_url")
            },
            "store": database(zone.target, "kd_writer"),
            "slots": {"orderbook": 1, "ticker": 1, "trade": 1, "lifecycle": 1},
            "connector": {"shard": "connector-a-1", "grace_s": 1.0, "settle_s": 0.2},
        },
        "deduplicator": {
            "gatherers": [{"zone": "a", "store": database(zone.target, "kd_reader")}],
            "production": database(production, "kd_writer"),
        },
    }
    for name, sections in files.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(common | sections))
    return directory / "gatherer.yaml", directory / "deduplicator.yaml"


async def test_the_previous_level_s_code_works_on_this_level(
    previous: Path, gatherer_db: Target, production_db: Target, tmp_path: Path
) -> None:
    """Its connector captures, its deduplicator merges and acknowledges: a held zone goes on after the migration."""
    names = {"gatherer": "GATHERER_LEVEL", "production": "PRODUCTION_LEVEL"}
    code = (previous / "libs/store/schema.py").read_text()
    for kind, level in PREVIOUS_LEVELS.items():
        assert f"{names[kind]}: Final = {level}\n" in code
        assert LEVELS[kind] == level + 1, "PREVIOUS is to be moved with a new level"  # type: ignore[index]
    async with (
        asyncio.timeout(120),
        running_zone(gatherer_db, tmp_path, markets=4, rate=60.0) as zone,
    ):
        gatherer, deduplicator = configure(zone, production_db, tmp_path)
        async with (
            connect(production_db) as production,
            process(previous, "connector", gatherer),
            process(previous, "deduplicator", deduplicator),
        ):
            await zone.until(lambda: production.fetchval(FACTS))
            acknowledged = "SELECT count(*) FROM lane_acknowledgements WHERE batch_no > 0"
            await zone.until(lambda: zone.conn.fetchval(acknowledged))
