"""Control over HTTP, as curl and a browser use it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.local.ports import free_port
from services.simulator.faults.menu import KINDS
from services.simulator.faults.script import read_script
from services.simulator.server import SimulatorServer, running_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.client import connected, get
from tests.support.keys import KeyPair

Make = Callable[..., SimulatorSettings]


async def ask(
    server: SimulatorServer, method: str, door: str, body: object = None
) -> tuple[int, Any]:
    """Ask a door of the control interface."""
    data = body if isinstance(body, str) or body is None else json.dumps(body)
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, f"{server.control_url}/{door}", data=data) as response,
    ):
        return response.status, json.loads(await response.read())


async def test_the_page_is_one_file_that_asks_nobody_else(settings: Make) -> None:
    """It is HTML, names the doors it uses, and loads nothing from anywhere; /control leads to it."""
    async with running_simulator(settings()) as server, aiohttp.ClientSession() as http:
        async with http.get(server.control_url) as response:
            page = await response.text()
            assert str(response.url).endswith("/control/")
            assert response.content_type == "text/html"
        assert re.findall(r"(?:src|href)=\"([^\"]*)\"", page) == [
            "data:,", "journal/market", "journal/session", "faults/script", "state", "books",
        ]  # fmt: skip
        for door in ("state", "books", "faults", "faults/script"):
            assert (await ask(server, "GET", door))[0] == 200
        for door in ("journal/market", "journal/session"):
            async with http.get(f"{server.control_url}/{door}") as response:
                assert response.status == 200


async def test_the_control_can_have_a_port_of_its_own(settings: Make, key: KeyPair) -> None:
    """Then whoever reaches the exchange's port reaches no control there, and the control's port is no exchange."""
    own = settings(control_port=free_port())
    async with running_simulator(own) as server, connected(server, key) as client:
        await client.subscribe("trade")
        assert server.control_url == f"http://127.0.0.1:{own.control_port}/control"
        assert (await ask(server, "GET", "state"))[1]["epoch"] == server.epoch
        exchange, control = (
            f"http://127.0.0.1:{server.port}",
            f"http://127.0.0.1:{own.control_port}",
        )
        async with aiohttp.ClientSession() as http:
            for url, status in (
                (f"{exchange}/control/state", 404),
                (f"{exchange}/control/journal/market", 404),
                (f"{exchange}/trade-api/v2/exchange/status", 200),
                (f"{control}/trade-api/v2/exchange/status", 404),
            ):
                async with http.get(url) as response:
                    assert response.status == status, url


async def test_a_fault_is_injected_seen_and_ended(settings: Make, key: KeyPair) -> None:
    """POST begins it, GET shows it among the active and then the done, DELETE ends it once."""
    async with running_simulator(settings()) as server, connected(server, key) as client:
        await client.subscribe("trade")
        await client.take(1)
        entry = {"fault": "stall", "for_s": 600.0, "on": {"channel": "trade"}}
        status, body = await ask(server, "POST", "faults", entry)
        assert (status, body["begun"][0]["number"], body["later"]) == (201, 1, 0)
        status, body = await ask(server, "GET", "faults")
        assert {item["fault"] for item in body["menu"]} == set(KINDS)
        assert [fault["entry"] for fault in body["active"]] == [entry]
        assert (await ask(server, "GET", "state"))[1]["faults"] == 1
        assert await ask(server, "DELETE", "faults/1") == (200, {"ended": 1})
        status, body = await ask(server, "DELETE", "faults/1")
        assert status == 404
        assert "no fault 1 is active" in body["error"]
        status, body = await ask(server, "GET", "faults")
        assert (body["active"], [fault["number"] for fault in body["done"]]) == ([], [1])
        await client.until(lambda frame: frame["type"] == "trade")


async def test_many_at_once_are_all_or_none(settings: Make) -> None:
    """One wrong entry refuses the list, with its place; what has a time waits for it and can be forgotten."""
    async with running_simulator(settings()) as server:
        drop = {"fault": "drop", "for_s": 60}
        status, body = await ask(server, "POST", "faults", [drop, {"fault": "close", "code": 7}])
        assert (status, body["faults"][0][:15]) == (400, "faults[1].code:")
        assert (await ask(server, "GET", "state"))[1]["faults"] == 0
        later = {"fault": "reset", "at_s": 4_000}
        status, body = await ask(server, "POST", "faults", {"faults": [drop, later, drop]})
        assert (status, len(body["begun"]), body["later"]) == (201, 2, 1)
        _, body = await ask(server, "GET", "faults")
        assert body["next_at"] == server.epoch + 4_000_000_000
        assert await ask(server, "DELETE", "faults?coming=true") == (200, {"ended": 2})
        assert (await ask(server, "GET", "faults"))[1]["next_at"] is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{", "body: send JSON"),
        ({"fault": "drp"}, "fault: no kind 'drp'; did you mean drop?"),
        ({"fault": "drop", "share": 2}, "share: expected 0 to 1, got 2"),
        ({"fault": "clock_step", "whose": "ours", "by_ms": 5}, "whose: choose exchange"),
        (7, "faults: expected a list"),
    ],
)
async def test_a_bad_fault_is_400_with_its_field(settings: Make, body: object, says: str) -> None:
    """The answer names the field and what to do."""
    async with running_simulator(settings(markets=1)) as server:
        status, told = await ask(server, "POST", "faults", body)
        assert status == 400
        assert told["faults"][0].startswith(says)
        assert told["error"].startswith(says)


async def test_the_script_of_a_run_is_a_script(
    settings: Make, key: KeyPair, tmp_path: Path
) -> None:
    """What was injected by hand comes back as entries with their times, and another simulator takes the file."""
    async with running_simulator(settings()) as server, connected(server, key) as client:
        await client.subscribe("trade")
        await client.until(lambda frame: frame["type"] == "trade")
        await ask(
            server, "POST", "faults", {"fault": "drop", "for_s": 0.5, "on": {"channel": "trade"}}
        )
        await ask(server, "POST", "faults", {"fault": "snapshot_storm"})
        status, script = await ask(server, "GET", "faults/script")
    assert status == 200
    assert [entry["fault"] for entry in script["faults"]] == ["drop", "snapshot_storm"]
    assert all(0 < entry["at_s"] < 60 for entry in script["faults"])
    file = tmp_path / "script.json"
    file.write_text(json.dumps(script))
    assert [fault.kind for fault in read_script(file)] == ["drop", "snapshot_storm"]
    async with running_simulator(settings(faults_file=str(file))) as server:
        assert (await ask(server, "GET", "faults"))[1]["next_at"] > server.epoch


async def test_publishing_that_is_held_begins_with_start(settings: Make, key: KeyPair) -> None:
    """Connections and whole-channel subscriptions stand before; markets and trades come after."""
    async with (
        running_simulator(settings(held=True, rest_stale_s_max=0.0)) as server,
        connected(server, key) as client,
    ):
        await client.subscribe("trade")
        await client.take(1)
        assert (await get(f"{server.rest_url}/markets"))[1]["markets"] == []
        assert (await ask(server, "GET", "state"))[1]["mode"] == "held"
        status, body = await ask(server, "POST", "start")
        assert (status, body["started"]) == (200, True)
        assert (await ask(server, "POST", "start"))[1]["started"] is False
        assert len((await get(f"{server.rest_url}/markets"))[1]["markets"]) == 20
        await client.until(lambda frame: frame["type"] == "trade")
        _, end = await ask(server, "POST", "stop")
        assert end["epoch"] == body["epoch"]
