"""The simulator as a process of its own, on its own event loop."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from services.simulator.model import market_journal
from services.simulator.plan import ModelPlan
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.client import Client, signed
from tests.support.keys import KeyPair, make_key

ROOT = Path(__file__).parents[3]


@dataclass
class Process:
    child: asyncio.subprocess.Process
    listening: dict[str, Any]


def config(folder: Path, **simulator: Any) -> Path:
    """Write a configuration (JSON is YAML) with every port chosen by the system."""
    sections = {
        "health": {"host": "127.0.0.1", "port": 0},
        "metrics": {"host": "127.0.0.1", "port": 0},
        "log": {"format": "json"},
        "simulator": {"port": 0, "journal_dir": str(folder / "journal"), **simulator},
    }
    file = folder / "simulator.yaml"
    file.write_text(json.dumps(sections))
    return file


async def start(file: Path, *more: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    arguments = ("-m", "services.simulator", "--config", str(file), *more)
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=pipe, stderr=pipe
    )


@asynccontextmanager
async def running(file: Path, *more: str) -> AsyncIterator[Process]:
    child = await start(file, *more)
    try:
        assert child.stdout is not None
        async with asyncio.timeout(60):
            async for line in child.stdout:
                if b"simulator_listening" in line:
                    break
        yield Process(child, json.loads(line))
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def test_process_publishes_stops_and_leaves_whole_journals(
    tmp_path: Path, key: KeyPair
) -> None:
    """It serves a websocket, ends on request, exits 0 on SIGTERM; the journal on disk is the model's."""
    keys = [{"key_id": key.key_id, "public_key_file": str(key.public_key_file)}]
    file = config(tmp_path, markets=10, rate=500, quiet_ms=10, keys=keys)
    async with running(file) as process, aiohttp.ClientSession() as http:
        base = process.listening["rest_url"].removesuffix("/trade-api/v2")
        async with http.ws_connect(process.listening["ws_url"], headers=signed(key)) as socket:
            client = Client(socket)
            await client.subscribe("trade")
            await client.until(lambda frame: frame.get("seq", 0) >= 5)
            async with http.post(f"{base}/control/stop") as answer:
                end = json.loads(await answer.read())
        process.child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.child.wait() == 0
    raw = (tmp_path / "journal" / "market.jsonl").read_bytes()
    plan = ModelPlan.of(SimulatorSettings(markets=10, rate=500))
    assert raw == market_journal(plan, end["epoch"], end["end_ts"], end["final_ts"])
    kinds = [
        json.loads(line)["kind"]
        for line in (tmp_path / "journal" / "session.jsonl").read_text().splitlines()
    ]
    assert {"opened", "subscribed", "end", "final_book", "closed"} <= set(kinds)


async def test_unreadable_key_files_are_all_named(tmp_path: Path) -> None:
    """A missing key file ends the process with status 2 and a line that names it."""
    keys = [{"key_id": name, "public_key_file": str(tmp_path / name)} for name in ("one", "two")]
    child = await start(config(tmp_path, keys=keys))
    async with asyncio.timeout(60):
        out, errors = await child.communicate()
    assert child.returncode == 2
    assert b"one" in out + errors
    assert b"two" in out + errors
    assert b"Traceback" not in out + errors


async def test_a_recording_is_replayed_by_two_words_on_the_command_line(tmp_path: Path) -> None:
    """--replay names the frames, --verbatim keeps their sid and seq; the market is listed by REST."""
    body = {"market_ticker": "KXREC-1", "market_id": "", "yes_dollars_fp": [["0.4700", "3.00"]]}
    frame = {"type": "orderbook_snapshot", "sid": 7, "seq": 41, "msg": body}
    frames = tmp_path / "frames.jsonl"
    frames.write_text(
        json.dumps({"recv_at": "2026-08-20T00:36:00Z", "ordinal": 1, "frame": frame}) + "\n"
    )
    key = make_key(tmp_path, "key")
    settings = {"keys": [{"key_id": key.key_id, "public_key_file": str(key.public_key_file)}]}
    async with running(
        config(tmp_path, **settings), "--replay", str(frames), "--verbatim"
    ) as process:
        assert process.listening["mode"] == "replay"
        rest, ws = process.listening["rest_url"], process.listening["ws_url"]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{rest}/markets/KXREC-1") as answer:
                assert (await answer.json())["market"]["ticker"] == "KXREC-1"
            async with session.ws_connect(ws, headers=signed(key)) as socket:
                params = {"channels": ["orderbook_delta"], "market_tickers": ["KXREC-1"]}
                await socket.send_json({"id": 1, "cmd": "subscribe", "params": params})
                received = [await socket.receive_json(timeout=60) for _ in range(2)]
    assert [(m["type"], m.get("sid"), m.get("seq")) for m in received] == [
        ("subscribed", None, None), ("orderbook_snapshot", 7, 41),
    ]  # fmt: skip
