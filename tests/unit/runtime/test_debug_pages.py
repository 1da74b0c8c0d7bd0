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


async def fetch(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return status and body of a page."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=dict(headers or {}))

    def read() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
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


async def test_a_browser_gets_the_page_as_html_where_there_is_one() -> None:
    """Whoever asks for text/html gets what the page's writer makes of query and answer; anybody else JSON."""
    metrics = Metrics("a")
    state = HealthState("s", "a", ManualClock(0), metrics)
    state.add_page("things", answer, lambda query, said: f"<p>{query['n']} {said['asked']}</p>")
    state.add_page("plain", answer)
    here = "127.0.0.1"
    async with HealthServer(
        state, metrics, HealthSettings(here, 0), MetricsSettings(here, 0)
    ) as server:
        browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        status, body = await fetch(server.port, "/debug/things?n=1", browser)
        assert (status, body) == (200, "<p>1 {'n': '1'}</p>")
        assert json.loads((await fetch(server.port, "/debug/things?n=1"))[1]) == {
            "asked": {"n": "1"}
        }
        assert json.loads((await fetch(server.port, "/debug/plain?n=1", browser))[1]) == {
            "asked": {"n": "1"}
        }
