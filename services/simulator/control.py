"""Control over HTTP under /control, unsigned: it is ours. A page for a person in a browser, JSON for curl and tests.

GET    /control/                 the page
GET    /control/state            what is published, who is connected
POST   /control/start, /stop     publishing (start: where it is held); stop answers with the journal's `end` record
GET    /control/books            every book as it stands
GET    /control/journal/market, /control/journal/session
GET    /control/faults           the menu, what is active, done, due next
POST   /control/faults           one entry, a list, or {"faults": [...]}; without at_s at once
DELETE /control/faults           ends what is active (?coming=true: forgets what is to come, too)
DELETE /control/faults/{number}  ends one
GET    /control/faults/script    what was injected so far, as a script
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from services.simulator.faults.entries import FaultInvalid, describe_menu, read_entry
from services.simulator.faults.menu import Fault
from services.simulator.faults.script import parse_script, script_of_journal
from services.simulator.frames import encode

if TYPE_CHECKING:
    from services.simulator.server import SimulatorServer

PREFIX = "/control"
PAGE = Path(__file__).with_name("control.html")


def answer(body: object, status: int = 200) -> web.Response:
    """Answer with a JSON body."""
    return web.Response(body=encode(body), status=status, content_type="application/json")


class Control:
    """Handlers over a running server."""

    def __init__(self, server: "SimulatorServer") -> None:
        self._server = server

    def routes(self) -> list[web.RouteDef]:
        get, post, delete = web.get, web.post, web.delete
        return [
            get(PREFIX, self.to_page),
            get(f"{PREFIX}/", self.page),
            get(f"{PREFIX}/state", self.state),
            post(f"{PREFIX}/start", self.start),
            post(f"{PREFIX}/stop", self.stop),
            get(f"{PREFIX}/books", self.books),
            get(f"{PREFIX}/journal/market", self.market),
            get(f"{PREFIX}/journal/session", self.session),
            get(f"{PREFIX}/faults", self.faults),
            post(f"{PREFIX}/faults", self.inject),
            delete(f"{PREFIX}/faults", self.end_all),
            delete(f"{PREFIX}/faults/{{number}}", self.end),
            get(f"{PREFIX}/faults/script", self.script),
        ]

    async def to_page(self, _request: web.Request) -> web.StreamResponse:
        raise web.HTTPPermanentRedirect(f"{PREFIX}/")

    async def page(self, _request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE, headers={"Cache-Control": "no-cache"})

    async def state(self, _request: web.Request) -> web.Response:
        return answer(self._server.state())

    async def start(self, _request: web.Request) -> web.Response:
        started = self._server.start_publishing()
        return answer({"started": started, "epoch": self._server.epoch})

    async def stop(self, _request: web.Request) -> web.Response:
        return answer(await self._server.stop_publishing())

    async def books(self, _request: web.Request) -> web.Response:
        return answer({"books": self._server.books()})

    async def market(self, _request: web.Request) -> web.FileResponse:
        self._server.market_journal.flush()
        return web.FileResponse(self._server.market_journal.path)

    async def session(self, _request: web.Request) -> web.FileResponse:
        self._server.session_journal.flush()
        return web.FileResponse(self._server.session_journal.path)

    async def faults(self, _request: web.Request) -> web.Response:
        return answer({"menu": describe_menu(), **self._server.simulation.faults.describe()})

    async def inject(self, request: web.Request) -> web.Response:
        try:
            tree = json.loads(await request.read())
        except ValueError:
            return _refused(['body: send JSON, such as {"fault": "drop", "for_s": 5}'])
        try:
            is_one = isinstance(tree, Mapping) and "faults" not in tree
            faults = [read_entry(tree)] if is_one else parse_script(tree)
            return answer(self._inject(faults), 201)
        except FaultInvalid as error:
            return _refused(error.faults)

    def _inject(self, faults: list[Fault]) -> dict[str, Any]:
        """Begin those for now, keep those for later; all of them or none."""
        injector, now = self._server.simulation.faults, self._server.clock.now()
        for fault in faults:
            injector.check(fault)
        later = [fault for fault in faults if fault.at_s is not None]
        injector.add(later)
        begun = [injector.inject(fault, now).describe() for fault in faults if fault.at_s is None]
        return {"begun": begun, "later": len(later)}

    async def end_all(self, request: web.Request) -> web.Response:
        injector = self._server.simulation.faults
        if request.query.get("coming") == "true":
            injector.forget()
        return answer({"ended": injector.end_all(self._server.clock.now())})

    async def end(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        injector = self._server.simulation.faults
        if number.isdecimal() and injector.end(int(number), self._server.clock.now()):
            return answer({"ended": 1})
        text = f"no fault {number} is active; GET {PREFIX}/faults lists those that are"
        return answer({"error": text}, 404)

    async def script(self, _request: web.Request) -> web.Response:
        journal = self._server.session_journal
        journal.flush()
        return answer({"faults": await asyncio.to_thread(_script_of, journal.path)})


def _refused(lines: list[str] | tuple[str, ...]) -> web.Response:
    return answer({"error": "; ".join(lines), "faults": list(lines)}, 400)


def _script_of(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as lines:
        return script_of_journal(lines)
