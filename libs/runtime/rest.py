"""A REST client from the settings: signed, and within this process's share of the account's read budget."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from libs.exchange.costs import Costs
from libs.exchange.environments import resolve_endpoints
from libs.exchange.errors import AuthRejected, EndpointInvalid, ExchangeError, TransportError
from libs.exchange.rest import RestClient, RestSettings, open_session
from libs.exchange.signing import rotating_signer
from libs.flow.token_bucket import TokenBucket
from libs.runtime.clock import Clock
from libs.runtime.errors import ConfigInvalid
from libs.runtime.secret import current
from libs.runtime.sections import ExchangeSettings
from libs.runtime.service import Runtime
from libs.store.waiting import first_of
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

ASK_AGAIN_S: Final = 3600.0
"""Seconds between two questions what the account may do and what reads cost: both change without notice."""
ASK_AGAIN_S_MIN: Final = 60.0
"""Seconds between two such questions after refusals: they are reads themselves."""
LEAST_COST: Final = 0.01
"""Part of a usual read that a read is planned with at least."""
BURST_S: Final = 1.0
"""Unused reads are saved for this many seconds."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The client, its bucket, and the share (0..1) of the account this process may use.

    Of the bucket everything is counted in reads of the usual cost. limited: set with every refusal for reading too much.
    account: whose budget it is; zones of one account share it, so /health and the log name it.
    """

    client: RestClient
    bucket: TokenBucket
    share: float
    clock: Clock
    reads_per_s: float
    account: str
    limited: asyncio.Event

    async def keep_to_account_limits(
        self, runtime: Runtime, applied: Callable[[float], None] | None = None
    ) -> None:
        """Ask again every hour, and soon after a refusal: another tier or cost counts at once. `applied` is told the rate."""
        while not runtime.stop.is_set():
            self.limited.clear()
            await runtime.sleep(ASK_AGAIN_S_MIN)
            await first_of(runtime.stop, self.limited, timeout_s=ASK_AGAIN_S - ASK_AGAIN_S_MIN)
            if not runtime.stop.is_set():
                rate = await self.respect_account_limits()
                if applied is not None:
                    applied(rate)

    async def respect_account_limits(self) -> float:
        """Ask what reads cost and what the account may spend, and keep to our share of it; never faster than configured.

        Returns the reads a second that are ours, also when the exchange does not answer (then as before).

        Raises:
            AuthRejected: the key is refused.
        """
        try:
            self.client.costs = Costs((await self.client.endpoint_costs()).value)
        except AuthRejected:
            raise
        except ExchangeError as error:
            # What reads cost stays as it was; what may be spent is to be known all the same.
            log.warning("endpoint_costs_unknown", error=str(error))
        try:
            limits = (await self.client.account_limits()).value
        except AuthRejected:
            raise
        except ExchangeError as error:
            log.warning("account_limits_unknown", error=str(error))
            return self.bucket.rate
        rate = min(self.reads_per_s, limits.read.refill_rate / self.client.costs.usual) * self.share
        if rate > 0:
            now = self.clock.monotonic()
            self.bucket.set_rate(now, rate, max(1.0, rate * BURST_S))
            log.info(
                "read_budget", account=self.account, tier=limits.usage_tier, reads_per_s=rate,
                share=self.share,
            )  # fmt: skip
        return self.bucket.rate

    def cost(self, path: str) -> float:
        """Return what a read of this path costs, in reads of the usual cost; never nothing."""
        return max(LEAST_COST, self.client.cost(path))

    def describe(self) -> dict[str, Any]:
        """What /health says of it."""
        return {
            "account": self.account,
            "requests": self.client.requests,
            "limited": self.client.limited,
            "reads_per_s": self.bucket.rate,
        }


@asynccontextmanager
async def open_rest(
    exchange: ExchangeSettings, account: str, share: float, runtime: Runtime
) -> AsyncIterator[Rest]:
    """Open the client for as long as it is entered; nothing is sent yet. After the stop every request fails at once.

    Raises:
        ConfigInvalid: an address of the exchange cannot be right.
        AuthRejected: the private key is missing or unusable.
    """
    try:
        ends = resolve_endpoints(exchange.environment, exchange.rest_url, exchange.ws_url)
    except EndpointInvalid as error:
        raise ConfigInvalid(error.faults) from error
    key_id = functools.partial(current, exchange.api_key_id)
    signer = rotating_signer(key_id, exchange.private_key_file)
    rate = exchange.reads_per_s * share
    bucket = TokenBucket(rate, max(1.0, rate * BURST_S))
    limits = RestSettings(connect_timeout_s=exchange.connect_timeout_s)
    clock, limited = runtime.clock, asyncio.Event()

    async def sleep(seconds: float) -> None:
        if not await runtime.sleep(max(seconds, 0.0)):
            raise TransportError("stopping")

    def count(endpoint: str, status: str) -> None:
        runtime.metrics.rest_requests_total.labels(endpoint, status).inc()

    async with open_session() as session:
        ending = asyncio.create_task(_hang_up(runtime, session.close), name="hang-up")
        try:
            client = RestClient(
                ends.rest_url, signer, bucket, clock, session, limits, sleep, count=count,
                on_limited=limited.set,
            )  # fmt: skip
            yield Rest(client, bucket, share, clock, exchange.reads_per_s, account, limited)
        finally:
            ending.cancel()
            await asyncio.wait([ending])


async def _hang_up(runtime: Runtime, close: Callable[[], Awaitable[None]]) -> None:
    await runtime.stop.wait()
    await close()
