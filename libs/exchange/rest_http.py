"""One REST request at a time: budget, signature, time limits, bounded repetition, and what an answer means.

Each attempt first takes its turn in the token bucket. 429, 5xx, transport faults and bodies that are not JSON are
repeated with exponential back-off, a bounded number of times; what is left is raised as one of errors.py.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from libs.exchange.costs import Costs
from libs.exchange.environments import path_of
from libs.exchange.errors import (
    AuthRejected,
    ExchangeError,
    KeyLapsed,
    RateLimited,
    TransportError,
)
from libs.exchange.frames import Clock
from libs.exchange.rest_errors import raise_for_answer
from libs.exchange.rest_wire import RawAnswer
from libs.exchange.signing import Signer
from libs.exchange.transport import shared_ssl_context
from libs.flow.backoff import Backoff
from libs.flow.token_bucket import TokenBucket

Params = Sequence[tuple[str, str]]
CountAttempt = Callable[[str, str], None]
"""Told of every attempt: its endpoint (the path, with {ticker} for a market's) and HTTP status, NO_ANSWER if none came."""
NO_ANSWER = "none"
KEY_PROVED_BY: Final = "/account/limits"
"""The path whose answer shows that a key is good. Market data is public, and may come from a cache that looks at no key."""


@dataclass(frozen=True, slots=True)
class RestSettings:
    """Limits of the client."""

    request_timeout_s: float = 30.0
    """Seconds for one attempt as a whole; the series list alone has 16 MB."""
    connect_timeout_s: float = 10.0
    """Seconds for name, TCP and TLS."""
    attempts_max: int = 6
    """Attempts of one request before its last error is raised."""
    backoff_s_min: float = 0.5
    backoff_s_max: float = 15.0
    retry_after_s_max: float = 60.0
    """Longest Retry-After obeyed, seconds."""
    body_bytes_max: int = 256 * 1024 * 1024
    """Largest answer read, bytes."""
    pages_max: int = 20_000
    """Pages of one listing before it counts as endless; a million markets have 1,000."""


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the HTTP session of a process: no limit on connections (the token bucket is), one shared TLS context."""
    connector = aiohttp.TCPConnector(limit=0, ssl=shared_ssl_context())
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


class HttpReader:
    """GET requests to one base address; see RestClient for the arguments and errors."""

    def __init__(
        self,
        base_url: str,
        signer: Signer | Callable[[], Signer] | None,
        bucket: TokenBucket,
        clock: Clock,
        session: aiohttp.ClientSession,
        settings: RestSettings | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        count: CountAttempt | None = None,
        on_limited: Callable[[], None] | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._base_path = path_of(self._base_url)
        self._signer = signer
        self._bucket = bucket
        self._clock = clock
        self._session = session
        self.settings = settings or RestSettings()
        self._sleep = sleep
        self._jitter = jitter
        self._count = count
        self._on_limited = on_limited
        self.costs = Costs()
        """What requests take from the bucket."""
        self.requests = 0
        """Attempts made since the start."""
        self.limited = 0
        """Attempts answered by 429 since the start."""
        self._was_accepted = False

    def cost(self, path: str) -> float:
        """Return what a request of this path takes from the bucket."""
        return self.costs.of(self._base_path + path)

    async def request(
        self,
        path: str,
        params: Params = (),
        is_answer: Callable[[int, bytes], bool] | None = None,
        *,
        endpoint: str = "",
    ) -> RawAnswer:
        """Read one path, repeating what is worth repeating. endpoint: how it is counted, the path itself by default."""
        limits = self.settings
        backoff = Backoff(limits.backoff_s_min, limits.backoff_s_max, self._jitter)
        while True:
            cost = self.costs.of(self._base_path + path, endpoint)
            await self._sleep(self._bucket.reserve(self._clock.monotonic(), cost))
            try:
                return await self._attempt(path, params, is_answer, endpoint or path)
            except ExchangeError as error:
                if not error.retryable or backoff.failures + 1 >= limits.attempts_max:
                    raise
                delay = backoff.next_delay()
                if isinstance(error, RateLimited):
                    self.limited += 1
                    if self._on_limited:
                        self._on_limited()
                    delay = max(delay, min(error.retry_after_s or 0.0, limits.retry_after_s_max))
                    self._bucket.hold(self._clock.monotonic(), delay)
            await self._sleep(delay)

    async def _attempt(
        self,
        path: str,
        params: Params,
        is_answer: Callable[[int, bytes], bool] | None,
        endpoint: str,
    ) -> RawAnswer:
        if self._session.closed:
            raise TransportError(f"GET {path}: stopping")
        limits = self.settings
        requested_at = self._clock.now()
        headers = {"Accept": "application/json"}
        # Asked anew for every request, so that a rotated key needs no restart.
        signer = self._signer() if callable(self._signer) else self._signer
        if signer:
            headers |= signer.headers("GET", self._base_path + path, requested_at)
        timeout = aiohttp.ClientTimeout(limits.request_timeout_s, connect=limits.connect_timeout_s)
        self.requests += 1
        # The signature is over the path as it is sent, so the client must not quote it a second time.
        url = URL(self._base_url + path, encoded=True).with_query(params)
        counted = NO_ANSWER
        try:
            async with self._session.get(
                url, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                status, answered = response.status, response.headers
                counted = str(status)
                body = await _read_body(response, limits.body_bytes_max)
        except TimeoutError as error:
            raise TransportError(f"GET {path}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(f"GET {path}: {type(error).__name__}: {error}") from error
        finally:
            if self._count:
                self._count(endpoint, counted)
        received_at = self._clock.now()
        if is_answer is None or not is_answer(status, body):
            self._judge(path, status, body, answered)
        if not body.lstrip()[:1] == b"{":
            raise TransportError(f"GET {path}: HTTP {status} with a body that is no JSON object")
        return RawAnswer(body, requested_at, received_at)

    def _judge(self, path: str, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Raise what a refusal means; a key that was good before is not the configuration's fault."""
        try:
            raise_for_answer(status, body, headers)
        except AuthRejected as error:
            if self._was_accepted:
                raise KeyLapsed(str(error)) from error
            raise
        if path == KEY_PROVED_BY:
            self._was_accepted = True


async def _read_body(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise TransportError(f"an answer of more than {bytes_max} bytes")
    return bytes(body)
