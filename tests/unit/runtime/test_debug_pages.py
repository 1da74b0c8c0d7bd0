"""A service's own pages under /debug/."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from libs.runtime.clock import ManualClock
from libs.runtime.health import HealthServer, HealthState, PageInvalid, PageUnavailable
from libs.runtime.sections import HealthSettings, MetricsSettings
from libs.telemetry.metrics import Metrics


async def fetch(port: int, path: str) -> tuple[int, str]:
    """Return status and body of a page."""

    def read() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(read)


async def answer(query: Mapping[str, str]) -> Any:
    """Echo the query; refuse one, be unavailable for another."""
    if "bad" in query:
        raise PageInvalid("bad: not a key")
    if "away" in query:
        raise PageUnavailable("the database is away")
    return {"asked": dict(query)}


async def test_a_page_answers_json_and_says_what_is_wrong() -> None:
    """200 with the answer, 400 with the fault, 503 while it cannot, 404 for what is not there."""
    metrics = Metrics("a")
    state = HealthState("s", "a", ManualClock(0), metrics)
    state.add_page("things", answer)
    here = "127.0.0.1"
    async with HealthServer(
        state, metrics, HealthSettings(here, 0), MetricsSettings(here, 0)
    ) as server:
        status, body = await fetch(server.port, "/debug/things?status=active&prefix=KX")
        assert (status, json.loads(body)) == (200, {"asked": {"status": "active", "prefix": "KX"}})
        assert await fetch(server.port, "/debug/things?bad=1") == (400, "bad: not a key\n")
        assert await fetch(server.port, "/debug/things?away=1") == (503, "the database is away\n")
        assert (await fetch(server.port, "/debug/nothing"))[0] == 404
