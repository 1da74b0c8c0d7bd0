"""What a process says about itself over HTTP: /livez, /readyz and /health on one port, /metrics on another.

/livez answers 200 as long as the event loop turns, and knows no dependency. /readyz answers 200 while the service does its
job, else 503 with the reason. /health is a JSON document for supervisors and people; /debug/NAME are a service's own
pages of that kind.
"""

import asyncio
import json
import os
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, TypeAlias, cast

from aiohttp import web

from libs.runtime.clock import Clock
from libs.runtime.errors import PortUnavailable
from libs.runtime.sections import HealthSettings, MetricsSettings
from libs.runtime.version import build_info
from libs.telemetry.logging import get_logger
from libs.telemetry.metrics import Metrics

log = get_logger(__name__)

FETCH_TIMEOUT_S = 2.0
_OWN_KEYS = frozenset(
    {"service", "zone", "version", "commit", "pid", "ready", "reason", "started_at", "now"}
)


Page: TypeAlias = Callable[[Mapping[str, str]], Awaitable[Any]]
"""What answers a page for people under /debug/: the query in, something JSON can say out."""

Html: TypeAlias = Callable[[Mapping[str, str], Any], str]
"""Writes the same page for a browser: the query and the answer in, a whole document out; it escapes what it shows."""


class PageInvalid(ValueError):
    """The query of a /debug/ page is wrong; the message says how."""


class PageUnavailable(Exception):
    """A /debug/ page cannot be answered now; the message says why."""


class HealthState:
    """What /readyz and /health answer; not ready until told so.

    Args:
        service: the service's name.
        zone: empty for a service that belongs to no zone.
        clock: for `started_at` and `now` of the document.
    """

    def __init__(self, service: str, zone: str, clock: Clock, metrics: Metrics) -> None:
        self.service = service
        self.zone = zone
        self._clock = clock
        self._metrics = metrics
        self._started_at = clock.now()
        self._ready = False
        self._reason = "starting"
        self._values: dict[str, Any] = {}
        self._pages: dict[str, Page] = {}
        self._html: dict[str, Html] = {}

    @property
    def ready(self) -> bool:
        """Whether the service does its job."""
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self.set_ready(ready)

    def set_ready(self, ready: bool, reason: str = "") -> None:
        """Say whether the service does its job and, if not, why; a change is logged."""
        if ready != self._ready:
            log.info("ready_changed", ready=ready, reason=reason)
        self._ready, self._reason = ready, reason
        self._metrics.ready.set(ready)

    def set(self, name: str, value: Any) -> None:
        """Put a value into the document; a callable is asked at every request. Must be JSON or have a text."""
        assert name not in _OWN_KEYS, name
        self._values[name] = value

    def add_page(self, name: str, answer: Page, html: Html | None = None) -> None:
        """Serve `answer` as JSON at /debug/NAME; it is given the query and raises PageInvalid for a wrong one.

        html: writes it for whoever asks for text/html, as browsers do.
        """
        self._pages[name] = answer
        if html is not None:
            self._html[name] = html

    async def page(self, name: str, query: Mapping[str, str]) -> Any:
        """The answer of /debug/NAME.

        Raises:
            KeyError: there is no such page.
            PageInvalid: the query is wrong.
        """
        return await self._pages[name](query)

    def html(self, name: str) -> Html | None:
        """What writes /debug/NAME for a browser; None when it is JSON for everybody."""
        return self._html.get(name)

    def document(self) -> dict[str, Any]:
        """The answer of /health."""
        build = build_info()
        return {
            "service": self.service,
            "zone": self.zone,
            "version": build.version,
            "commit": build.commit,
            "pid": os.getpid(),
            "ready": self._ready,
            "reason": self._reason,
            "started_at": self._started_at,
            "now": self._clock.now(),
        } | {name: value() if callable(value) else value for name, value in self._values.items()}


class HealthServer:
    """Serves a HealthState and the metrics; open for as long as it is entered.

    Attributes:
        port: the port that was opened for probes; differs from the setting only where that is 0.
        metrics_port: likewise for /metrics.
    """

    def __init__(
        self, state: HealthState, metrics: Metrics, health: HealthSettings, scrape: MetricsSettings
    ) -> None:
        self._state = state
        self._metrics = metrics
        self._health = health
        self._scrape = scrape
        self._runners: list[web.AppRunner] = []
        self.port = 0
        self.metrics_port = 0

    async def __aenter__(self) -> Self:
        """Open both ports.

        Raises:
            PortUnavailable: names the address and the key that sets it.
        """
        probes = web.Application()
        probes.router.add_get("/livez", _livez)
        probes.router.add_get("/readyz", self._readyz)
        probes.router.add_get("/health", self._document)
        probes.router.add_get("/debug/{page}", self._page)
        scrape = web.Application()
        scrape.router.add_get("/metrics", self._exposition)
        try:
            self.port = await self._open(probes, self._health, "health")
            self.metrics_port = await self._open(scrape, self._scrape, "metrics")
        except PortUnavailable:
            await self._close()
            raise
        log.info("health_listening", port=self.port, metrics_port=self.metrics_port)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    async def _open(
        self, app: web.Application, address: HealthSettings | MetricsSettings, section: str
    ) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        try:
            await web.TCPSite(runner, address.host, address.port).start()
        except OSError as error:
            raise PortUnavailable(
                f"cannot listen on {address.host}:{address.port} ({error.strerror or error});"
                f" stop what uses it or set another {section}.port"
            ) from error
        return cast(int, runner.addresses[0][1])

    async def _close(self) -> None:
        while self._runners:
            await self._runners.pop().cleanup()

    async def _readyz(self, _request: web.Request) -> web.Response:
        document = self._state.document()
        text = "ready\n" if document["ready"] else f"not ready: {document['reason']}\n"
        return web.Response(text=text, status=200 if document["ready"] else 503)

    async def _document(self, _request: web.Request) -> web.Response:
        return web.json_response(self._state.document(), dumps=_dumps)

    async def _page(self, request: web.Request) -> web.Response:
        name = request.match_info["page"]
        try:
            answer = await self._state.page(name, request.query)
        except KeyError:
            return web.Response(text=f"no page {name}\n", status=404)
        except PageInvalid as error:
            return web.Response(text=f"{error}\n", status=400)
        except PageUnavailable as error:
            return web.Response(text=f"{error}\n", status=503)
        html = self._state.html(name)
        if html is not None and "text/html" in request.headers.get("Accept", ""):
            return web.Response(text=html(request.query, answer), content_type="text/html")
        return web.json_response(answer, dumps=_dumps)

    async def _exposition(self, request: web.Request) -> web.Response:
        body, content_type = self._metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


async def fetch_health(
    port: int, host: str = "127.0.0.1", timeout_s: float = FETCH_TIMEOUT_S
) -> dict[str, Any]:
    """The /health document of another process, read in a thread by the standard library alone.

    Raises:
        OSError: nobody answers, in time or at all.
        ValueError: what answers is no health server.
    """
    return await asyncio.to_thread(_fetch, f"http://{host}:{port}/health", timeout_s)


def _fetch(url: str, timeout_s: float) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - http:// is ours
        document = json.load(answer)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answers no JSON object")  # noqa: TRY004 - wrong content, not a wrong argument
    return document


async def _livez(_request: web.Request) -> web.Response:
    return web.Response(text="alive\n")


def _dumps(document: Any) -> str:
    return json.dumps(document, default=str)
