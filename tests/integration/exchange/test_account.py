"""The account's limits are kept to, whatever else the exchange does not say."""

import asyncio

from libs.exchange.rest import RestSettings
from libs.flow.token_bucket import TokenBucket
from libs.runtime.clock import SystemClock
from libs.runtime.rest import Rest
from tests.integration.exchange.test_rest import SIGNER, answer, script, serving


async def test_the_limits_hold_though_nobody_says_what_reads_cost() -> None:
    """The list of costs is away or cannot be read: reads count as usual, and the account's rate is kept to."""
    limits = '{"usage_tier":"basic","read":{"refill_rate":200,"bucket_capacity":400}}'
    handle, seen = script(answer("{}", 404), answer(limits))
    async with serving(handle, RestSettings(attempts_max=1), signer=SIGNER) as (client, _):
        bucket = TokenBucket(500.0, 500.0)
        rest = Rest(client, bucket, 0.5, SystemClock(), 1000.0, "one", asyncio.Event())
        assert await rest.respect_account_limits() == 10.0
    assert [request.path for request in seen] == [
        "/trade-api/v2/account/endpoint_costs",
        "/trade-api/v2/account/limits",
    ]
    assert bucket.rate == 10.0
