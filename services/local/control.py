"""The simulator's control doors, asked over HTTP in a thread by the standard library alone."""

import asyncio
import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

TIMEOUT_S = 30.0


class SimulatorControl:
    """One running simulator on this machine."""

    def __init__(self, port: int) -> None:
        self._base = f"127.0.0.1:{port}"

    @property
    def rest_url(self) -> str:
        return f"http://{self._base}/trade-api/v2"

    @property
    def ws_url(self) -> str:
        return f"ws://{self._base}/trade-api/ws/v2"

    @property
    def page_url(self) -> str:
        """Where a person watches the exchange, and breaks it, in a browser."""
        return f"http://{self._base}/control/"

    async def state(self) -> dict[str, Any]:
        """Return what it has published so far."""
        return await self._ask("GET", "state")

    async def books(self) -> dict[str, Any]:
        """Return the last book of every market."""
        return await self._ask("GET", "books")

    async def stop(self) -> dict[str, Any]:
        """End publishing; returns after one more frame went out on every sid.

        Raises:
            OSError: the simulator does not answer.
        """
        return await self._ask("POST", "stop")

    async def inject(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Let these faults happen: at once, or at their `at_s`.

        Raises:
            OSError: the simulator does not answer, or refuses one of them.
        """
        return await self._ask("POST", "faults", {"faults": list(entries)})

    async def _ask(self, method: str, door: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        url = f"http://{self._base}/control/{door}"
        request = urllib.request.Request(url, data, method=method)
        answer = await asyncio.to_thread(_read, request)
        assert isinstance(answer, dict), door
        return answer


def _read(request: urllib.request.Request) -> Any:
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http://127.0.0.1
        return json.load(answer)
