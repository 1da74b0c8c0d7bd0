"""kopf: it watches the Gatherers and its peers, in a thread and an event loop of its own, and only says that something changed.

It has a loop of its own because at its end it cancels every task that began after it, and sets the process's signal
handlers: both would end planning, which must go on whatever becomes of the API. Its handlers put no finalizer and no
annotation on anything. It is begun anew when it ends by itself.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from typing import Any

import kopf

from libs.kube.client import Kube, read_access
from libs.runtime.service import Runtime
from libs.telemetry.logging import get_logger
from services.operator.peering import ensure_peering
from services.operator.resource import GATHERERS
from services.operator.settings import OperatorSettings

log = get_logger(__name__)

STOP_S_MAX = 5.0
"""Seconds it has to say goodbye to its peers; then the process ends without that."""
SERVER_TIMEOUT_S = 600
"""Seconds after which a watch is asked for anew, however alive it seems; whole ones, or the API refuses it."""


class _Connection(kopf.ConnectionInfo):
    """A connection that is verified as kubectl does it: Python 3.13 refuses authorities of clusters in use."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


class _Stop:
    """Ends kopf from another thread.

    Of its own loop's kind: a flag that a thread waits for would hold kopf's thread when it ends by itself.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._here: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def here(self) -> asyncio.Event:
        """Return the flag of the running loop; called once."""
        event = asyncio.Event()
        self._here = (asyncio.get_running_loop(), event)
        if self._is_set:
            event.set()
        return event

    def set(self) -> None:
        """Set it, from any thread, however early or late."""
        self._is_set = True
        if self._here is not None:
            loop, event = self._here
            with contextlib.suppress(RuntimeError):  # it has ended before
                loop.call_soon_threadsafe(event.set)


class Watch:
    """Watches one namespace.

    Args:
        holder: who we are among the peers.
        begun: called in our loop when kopf's startup handlers run; changed: when a Gatherer is another one.
    """

    def __init__(
        self,
        kube: Kube,
        own: OperatorSettings,
        holder: str,
        *,
        begun: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._own = own
        self._holder = holder
        self._begun = begun
        self._changed = changed
        self._generations: dict[str, tuple[Any, ...]] = {}

    async def keep(self, runtime: Runtime) -> None:
        """Watch until stop."""
        while not runtime.stop.is_set():
            has_peers = await ensure_peering(self._kube, self._own)
            settings, stop = self._settings(runtime, has_peers=has_peers), _Stop()
            ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
            arguments, name = (settings, stop, ended), f"kopf-{self._own.name}"
            threading.Thread(target=self._be, args=arguments, name=name, daemon=True).start()
            stopping = asyncio.ensure_future(runtime.stop.wait())
            try:
                waited: list[asyncio.Future[Any]] = [ended, stopping]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.set()
                stopping.cancel()
            if not runtime.stop.is_set():
                runtime.metrics.task_faults_total.labels("watch").inc()
                log.warning("watch_ended", error=repr(ended.result()))
                await runtime.sleep(self._own.retry_s)
                continue
            await asyncio.wait([ended], timeout=STOP_S_MAX)

    def _be(
        self,
        settings: kopf.OperatorSettings,
        stop: "_Stop",
        ended: "asyncio.Future[BaseException | None]",
    ) -> None:
        """Be kopf's thread."""
        fault: BaseException | None = None
        loop = ended.get_loop()
        try:
            asyncio.run(self._operate(settings, stop, loop))
        except Exception as error:  # noqa: BLE001 - a thread's errors are seen by nobody else: handed to our loop, and logged there
            fault = error
        with contextlib.suppress(RuntimeError):  # our loop has ended before
            loop.call_soon_threadsafe(_finish, ended, fault)

    async def _operate(
        self, settings: kopf.OperatorSettings, stop: "_Stop", loop: asyncio.AbstractEventLoop
    ) -> None:
        await kopf.operator(
            registry=self._registry(loop),
            settings=settings,
            namespaces=[self._kube.namespace],
            identity=self._holder,  # type: ignore[arg-type]
            stop_flag=stop.here(),
        )

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.startup(registry=registry)
        async def begin(**_: Any) -> None:
            loop.call_soon_threadsafe(self._begun)

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            access = await read_access(self._own.kubeconfig)
            return _Connection(
                server=access.server,
                token=access.token or None,
                ca_path=access.ca_file or None,
                insecure=not access.is_verified,
                certificate_path=access.certificate_file or None,
                private_key_path=access.key_file or None,
            )

        @kopf.on.event(*GATHERERS, registry=registry)
        async def seen(event: Any, meta: Any, **_: Any) -> None:
            # Our own patches of the status are no news: those do not raise the generation.
            now = (event["type"] == "DELETED", meta["uid"], meta["generation"])
            if self._generations.get(meta["name"]) != now:
                self._generations[meta["name"]] = now
                loop.call_soon_threadsafe(self._changed)

        return registry

    def _settings(self, runtime: Runtime, *, has_peers: bool) -> kopf.OperatorSettings:
        own, settings = self._own, kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.process.ultimate_exiting_timeout = None  # it would kill this thread's process
        settings.networking.request_timeout = own.request_s
        settings.networking.connect_timeout = own.request_s
        settings.watching.server_timeout = SERVER_TIMEOUT_S
        settings.peering.standalone = not has_peers
        settings.peering.name = own.peering
        settings.peering.lifetime = own.peering_s
        # Who started last goes on watching, the others pause; they go on planning where the database lets them.
        settings.peering.priority = runtime.clock.now() // 1_000
        return settings


def _finish(ended: "asyncio.Future[BaseException | None]", fault: BaseException | None) -> None:
    if not ended.done():
        ended.set_result(fault)
