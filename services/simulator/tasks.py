"""The one loop of the simulator: publish, sleep a few milliseconds, publish."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.simulator.server import SimulatorServer


async def publish_forever(server: "SimulatorServer", stop: asyncio.Event | None = None) -> None:
    """Publish round after round until `stop`; a late round is followed by the next at once."""
    pause = server.settings.tick_ms / 1000
    while stop is None or not stop.is_set():
        is_done = server.publish_once()
        await asyncio.sleep(pause if is_done else 0)
