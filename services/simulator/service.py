"""Composition root: one server, one publishing task, until the stop signal."""

from libs.runtime.service import Runtime
from libs.telemetry.logging import get_logger
from services.simulator.server import SimulatorServer
from services.simulator.settings import Settings
from services.simulator.tasks import publish_forever

log = get_logger(__name__)


async def run(settings: Settings, runtime: Runtime) -> None:
    """Be the exchange until the stop signal; the journals are complete when this returns."""
    server = SimulatorServer(settings.simulator, runtime.clock)
    try:
        await server.open()
        log.info(
            "simulator_listening",
            rest_url=server.rest_url,
            ws_url=server.ws_url,
            seed=settings.simulator.seed,
            epoch=server.epoch,
            mode=server.simulation.stage.mode,
        )
        async with runtime.tasks() as tasks:
            tasks.start("publish", publish_forever(server, runtime.stop))
            runtime.health.ready = True
            await runtime.stop.wait()
    finally:
        await server.close()
