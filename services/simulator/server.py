"""The composition of the simulator, and the handle other processes and tests hold it by."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.runtime.clock import Clock
from services.simulator.settings import SimulatorSettings


class SimulatorServer:
    """A running simulated exchange.

    Attributes: `rest_url` (http://HOST:PORT/trade-api/v2), `ws_url` (ws://HOST:PORT/trade-api/ws/v2),
    `control_url` (http://HOST:PORT/control), `port` (the actual one).
    """

    def __init__(self, settings: SimulatorSettings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.port = settings.port

    @property
    def rest_url(self) -> str:
        return f"http://{self.settings.host}:{self.port}/trade-api/v2"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.settings.host}:{self.port}/trade-api/ws/v2"

    @property
    def control_url(self) -> str:
        return f"http://{self.settings.host}:{self.port}/control"


async def start_simulator(
    settings: SimulatorSettings, clock: Clock | None = None
) -> SimulatorServer:
    """Start a simulator; the caller calls `await server.close()`."""
    raise NotImplementedError


@asynccontextmanager
async def running_simulator(
    settings: SimulatorSettings, clock: Clock | None = None
) -> AsyncIterator[SimulatorServer]:
    """Run a simulator for the length of a `with` block; use port=0 in tests."""
    raise NotImplementedError
    yield
