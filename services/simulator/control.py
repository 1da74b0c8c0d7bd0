"""Control over HTTP under /control: what was published, the end of publishing, the journals. Unsigned: it is ours."""

from typing import TYPE_CHECKING

from aiohttp import web

from services.simulator.rest import answer

if TYPE_CHECKING:
    from services.simulator.server import SimulatorServer

PREFIX = "/control"


def routes(server: "SimulatorServer") -> list[web.RouteDef]:
    """Return the routes over a running server."""

    async def state(_request: web.Request) -> web.Response:
        return answer(server.state())

    async def stop(_request: web.Request) -> web.Response:
        return answer(await server.stop_publishing())

    async def books(_request: web.Request) -> web.Response:
        return answer({"books": server.books()})

    async def market(_request: web.Request) -> web.FileResponse:
        server.market_journal.flush()
        return web.FileResponse(server.market_journal.path)

    async def session(_request: web.Request) -> web.FileResponse:
        server.session_journal.flush()
        return web.FileResponse(server.session_journal.path)

    return [
        web.get(f"{PREFIX}/state", state),
        web.post(f"{PREFIX}/stop", stop),
        web.get(f"{PREFIX}/books", books),
        web.get(f"{PREFIX}/journal/market", market),
        web.get(f"{PREFIX}/journal/session", session),
    ]
