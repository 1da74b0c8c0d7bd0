import asyncio
import json
import socket
import urllib.error
import urllib.request

import pytest

from libs.runtime.clock import ManualClock
from libs.runtime.errors import PortUnavailable
from libs.runtime.health import HealthServer, HealthState, fetch_health
from libs.runtime.sections import HealthSettings, MetricsSettings
from libs.telemetry.metrics import Metrics

HERE = "127.0.0.1"


def make() -> tuple[HealthState, HealthServer]:
    metrics = Metrics("a")
    state = HealthState("registry", "a", ManualClock(5), metrics)
    server = HealthServer(state, metrics, HealthSettings(HERE, 0), MetricsSettings(HERE, 0))
    return state, server


async def get(port: int, path: str) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{HERE}:{port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def test_liveness_and_readiness_are_different_questions() -> None:
    """Alive from the start; ready when told so, and not ready says why."""
    state, server = make()
    async with server:
        assert await get(server.port, "/livez") == (200, "alive\n")
        assert await get(server.port, "/readyz") == (503, "not ready: starting\n")
        state.ready = True
        assert await get(server.port, "/readyz") == (200, "ready\n")
        state.set_ready(False, "database away")
        assert await get(server.port, "/readyz") == (503, "not ready: database away\n")


async def test_health_is_a_document() -> None:
    """Identity, readiness and the service's own values; a callable is asked at every request."""
    state, server = make()
    rows = [1]
    state.set("connections", 3)
    state.set("rows", lambda: len(rows))
    state.set("odd", {1, 2}.__class__)
    async with server:
        rows.append(2)
        document = await fetch_health(server.port, timeout_s=60)
    assert document["connections"] == 3
    assert document["rows"] == 2
    assert (document["service"], document["zone"], document["ready"]) == ("registry", "a", False)
    assert (document["started_at"], document["now"]) == (5, 5)


async def test_metrics_have_a_port_of_their_own() -> None:
    """/metrics answers there and nowhere else."""
    state, server = make()
    state.ready = True
    async with server:
        status, text = await get(server.metrics_port, "/metrics")
        assert status == 200
        assert 'kalshi_data_ready{zone="a"} 1.0' in text
        assert (await get(server.port, "/metrics"))[0] == 404


async def test_a_taken_port_is_a_clear_error_and_opens_nothing() -> None:
    """The address and the key are named; the port that was opened before is closed again."""
    metrics = Metrics()
    state = HealthState("x", "", ManualClock(0), metrics)
    with socket.create_server((HERE, 0)) as taken, socket.create_server((HERE, 0)) as other:
        port = taken.getsockname()[1]
        free = other.getsockname()[1]
        other.close()
        server = HealthServer(
            state, metrics, HealthSettings(HERE, free), MetricsSettings(HERE, port)
        )
        with pytest.raises(PortUnavailable, match=rf"{HERE}:{port} .*set another metrics.port"):
            async with server:
                pass
    with pytest.raises(OSError, match="refused"):
        await fetch_health(free)


async def test_fetching_from_no_health_server_is_an_error() -> None:
    """What is no JSON object is a ValueError, not a document."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps([1]).encode()
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, HERE, 0)
    async with server:
        with pytest.raises(ValueError, match="no JSON object"):
            await fetch_health(server.sockets[0].getsockname()[1], timeout_s=60)
