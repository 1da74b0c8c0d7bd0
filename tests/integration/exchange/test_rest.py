"""The REST client against a small server of our own that misbehaves as the exchange was seen to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.exchange.costs import Costs
from libs.exchange.errors import (
    ApiError,
    ApiUnavailable,
    AuthRejected,
    ClockSkewed,
    KeyLapsed,
    PagingBroken,
    RateLimited,
    TransportError,
    Undecodable,
)
from libs.exchange.rest import RestClient, RestSettings, open_session
from libs.exchange.signing import Signer, verify
from libs.flow.token_bucket import TokenBucket

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SIGNER = Signer(
    "key-1",
    KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ),
)
NOW = 1_781_159_489_000_000
SKEWED = '{"error":{"code":"header_timestamp_expired","message":"header timestamp expired"}}'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StepClock:
    """Wall time moves a millisecond a reading; monotonic time moves with the waits."""

    def __init__(self) -> None:
        self.wall = NOW
        self.seconds = 0.0
        self.waits: list[float] = []

    def now(self) -> int:
        self.wall += 1000
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, delay_s: float) -> None:
        if delay_s > 0:
            self.waits.append(delay_s)
            self.seconds += delay_s


def answer(text: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=text, status=status, headers=headers, content_type="application/json")


@asynccontextmanager
async def serving(
    handler: Handler,
    settings: RestSettings | None = None,
    signer: Signer | Callable[[], Signer] | None = None,
) -> AsyncIterator[tuple[RestClient, StepClock]]:
    """Serve every path with the handler and hand out a client of it, with a clock that waits for nothing."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    clock = StepClock()
    try:
        async with open_session() as session:
            yield (
                RestClient(
                    f"http://127.0.0.1:{port}/trade-api/v2",
                    signer,
                    TokenBucket(1000, 1000),
                    clock,
                    session,
                    settings,
                    sleep=clock.sleep,
                    jitter=lambda: 0.0,
                ),
                clock,
            )
    finally:
        await runner.cleanup()


def script(*responses: web.Response) -> tuple[Handler, list[web.Request]]:
    """Answer the n-th request with the n-th response."""
    queue, seen = list(responses), list[web.Request]()

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return queue.pop(0)

    return handle, seen


STATUS = '{"exchange_active":true,"trading_active":false,"new":1}'


async def test_signed_request_and_its_times() -> None:
    """The signature covers the whole path without its query, and the answer knows when it was asked and came."""
    handle, seen = script(answer('{"markets":[],"cursor":""}'), answer(STATUS))
    async with serving(handle, signer=SIGNER) as (client, _):
        async for _ in client.markets(status="open", tickers=["A", "B.9"]):
            pass
        status = await client.exchange_status()
    headers = seen[0].headers
    assert seen[0].path == "/trade-api/v2/markets"
    assert dict(seen[0].query) == {"status": "open", "tickers": "A,B.9", "limit": "1000"}
    assert verify(
        KEY.public_key(),
        headers["KALSHI-ACCESS-TIMESTAMP"],
        "GET",
        "/trade-api/v2/markets",
        headers["KALSHI-ACCESS-SIGNATURE"],
    )
    assert (status.value.exchange_active, status.value.trading_active) == (True, False)
    assert status.value.body["new"] == 1
    assert status.received_at > status.requested_at > NOW


async def test_unsigned_without_a_signer() -> None:
    """Market data can be read without a key: no header of ours is sent."""
    handle, seen = script(answer('{"schedule":{}}'))
    async with serving(handle) as (client, _):
        assert (await client.exchange_schedule()).value == {"schedule": {}}
    assert not [name for name in seen[0].headers if name.startswith("KALSHI")]


@pytest.mark.parametrize(
    "body",
    [
        '{"error":"too many requests"}',
        '{"error":{"code":"too_many_requests","message":"too many requests"}}',
    ],
)
async def test_429_in_both_bodies_waits_and_goes_on(body: str) -> None:
    """Both bodies of 429 are waited for with growing delays; Retry-After is honoured where it is longer."""
    handle, _ = script(
        answer(body, 429),
        answer(body, 429, {"Retry-After": "7"}),
        answer(body, 429),
        answer(STATUS),
    )
    async with serving(handle) as (client, clock):
        assert (await client.exchange_status()).value.exchange_active
        assert (client.requests, client.limited) == (4, 3)
    assert clock.seconds >= 0.25 + 7 + 1.0
    assert max(clock.waits) >= 7


async def test_a_read_is_paid_for_by_its_price() -> None:
    """What the exchange says it costs is taken from the bucket before it is asked for, every time."""
    said = """{"default_cost":10,"endpoint_costs":[
        {"method":"GET","path":"/trade-api/v2/exchange/status","cost":10000}]}"""
    handle, _ = script(answer(said), answer(STATUS), answer(STATUS))
    async with serving(handle) as (client, clock):
        client.costs = Costs((await client.endpoint_costs()).value)
        assert client.cost("/exchange/status") == 1000
        await client.exchange_status()
        assert clock.seconds == pytest.approx(0.001)
        await client.exchange_status()
        assert clock.seconds == pytest.approx(1.001)


async def test_attempts_are_bounded() -> None:
    """The last error is raised when all attempts are used up."""
    handle, seen = script(*(answer('{"error":"too many requests"}', 429) for _ in range(9)))
    async with serving(handle, RestSettings(attempts_max=3)) as (client, _):
        with pytest.raises(RateLimited, match="too many requests"):
            await client.exchange_status()
    assert len(seen) == 3


async def test_502_html_empty_and_truncated_bodies_are_survived() -> None:
    """A CDN's HTML, nothing at all, and HTML under status 200 are repeated until the exchange answers."""
    handle, seen = script(
        web.Response(text="<html>Bad Gateway</html>", status=502, content_type="text/html"),
        web.Response(status=503),
        web.Response(text="<html>hello</html>", content_type="text/html"),
        web.Response(),
        answer(STATUS),
    )
    async with serving(handle) as (client, _):
        assert (await client.exchange_status()).value.exchange_active
    assert len(seen) == 5


async def test_5xx_for_good_is_api_unavailable() -> None:
    """When the exchange stays away, the error is retryable and carries its status."""
    handle, _ = script(*(web.Response(status=503, text="<p>down</p>") for _ in range(2)))
    async with serving(handle, RestSettings(attempts_max=2)) as (client, _):
        with pytest.raises(ApiUnavailable) as caught:
            await client.exchange_schedule()
    assert (caught.value.status, caught.value.retryable) == (503, True)


async def test_a_status_body_under_503_is_an_answer() -> None:
    """The status endpoint says by 503 that the exchange pauses: that is news, not a fault."""
    handle, seen = script(
        answer('{"exchange_active":false,"trading_active":false}', 503),
    )
    async with serving(handle) as (client, _):
        assert (await client.exchange_status()).value.exchange_active is False
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ('{"error":{"code":"not_found","message":"m","details":"d"}}', ("not_found", "m", "d")),
        ('{"code":"bad","message":"m","details":"d"}', ("bad", "m", "d")),
        ('{"msg":"Parameter validation failed"}', ("", "Parameter validation failed", "")),
        ('{"error":"plain"}', ("", "plain", "")),
    ],
)
async def test_four_error_shapes_are_one_error(body: str, parts: tuple[str, str, str]) -> None:
    """All four recorded shapes become one ApiError, at once."""
    handle, seen = script(answer(body, 400))
    async with serving(handle) as (client, _):
        with pytest.raises(ApiError) as caught:
            await client.market("K-1.5")
    error = caught.value
    assert (error.status, error.code, error.message, error.details) == (400, *parts)
    assert len(seen) == 1
    assert seen[0].path == "/trade-api/v2/markets/K-1.5"


async def test_every_request_asks_who_signs() -> None:
    """A key that is rotated between two requests signs the second one."""
    handle, seen = script(*(answer('{"exchange_active":true,"trading_active":true}') for _ in "12"))
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signers = iter((SIGNER, Signer("key-2", pem)))
    async with serving(handle, signer=lambda: next(signers)) as (client, _):
        await client.exchange_status()
        await client.exchange_status()
    assert [request.headers["KALSHI-ACCESS-KEY"] for request in seen] == ["key-1", "key-2"]


async def test_401_is_auth_rejected_and_skew_is_signed_again() -> None:
    """A refused key ends at once with what to check; a refused clock is signed anew and may succeed."""
    refused = '{"error":{"code":"authentication_error","details":"NOT_FOUND"}}'
    handle, seen = script(answer(refused, 401))
    async with serving(handle, signer=SIGNER) as (client, _):
        with pytest.raises(AuthRejected, match=r"NOT_FOUND.*api_key_id"):
            await client.account_limits()
    assert len(seen) == 1
    limits = '{"usage_tier":"basic","read":{"refill_rate":200,"bucket_capacity":400}}'
    handle, seen = script(answer(SKEWED, 401), answer(limits))
    async with serving(handle, signer=SIGNER) as (client, _):
        assert (await client.account_limits()).value.read.bucket_capacity == 400
    stamps = [request.headers["KALSHI-ACCESS-TIMESTAMP"] for request in seen]
    assert stamps[0] != stamps[1]
    handle, seen = script(*(answer(SKEWED, 401) for _ in range(2)))
    async with serving(handle, RestSettings(attempts_max=2), signer=SIGNER) as (client, _):
        with pytest.raises(ClockSkewed, match="clock"):
            await client.account_limits()


async def test_a_key_that_was_good_before_is_asked_with_again() -> None:
    """A 401 in passing is waited out; one that stays is an error that a service lives through, never a refused key."""
    limits = '{"usage_tier":"basic","read":{"refill_rate":200,"bucket_capacity":400}}'
    refused = '{"error":{"code":"authentication_error","details":"NOT_FOUND"}}'
    script_of = [(limits, 200), (refused, 401), (limits, 200), (refused, 401), (refused, 401)]
    handle, seen = script(*(answer(body, status) for body, status in script_of))
    async with serving(handle, RestSettings(attempts_max=2), signer=SIGNER) as (client, _):
        await client.account_limits()
        assert (await client.account_limits()).value.usage_tier == "basic"
        assert len(seen) == 3
        with pytest.raises(KeyLapsed, match="NOT_FOUND"):
            await client.account_limits()
    assert len(seen) == 5


async def test_a_public_answer_does_not_prove_a_key() -> None:
    """What is answered to anybody, as the list of costs that is asked for first, hides no wrong key."""
    refused = '{"error":{"code":"authentication_error","details":"NOT_FOUND"}}'
    handle, _ = script(answer('{"default_cost":10,"endpoint_costs":[]}'), answer(refused, 401))
    async with serving(handle, RestSettings(attempts_max=2), signer=SIGNER) as (client, _):
        await client.endpoint_costs()
        with pytest.raises(AuthRejected, match="NOT_FOUND"):
            await client.account_limits()


async def test_a_request_after_the_end_is_no_crash() -> None:
    """Whoever stops closes the connections first, so that what is under way ends; what comes then fails as if away."""
    async with open_session() as session:
        await session.close()
    client = RestClient(
        "http://127.0.0.1:1/trade-api/v2", None, TokenBucket(1000, 1000), StepClock(), session,
        RestSettings(attempts_max=1), jitter=lambda: 0.0,
    )  # fmt: skip
    with pytest.raises(TransportError, match="stopping"):
        await client.exchange_status()


async def test_pages_go_on_over_an_empty_one() -> None:
    """An empty page with a cursor is not the end; the empty cursor is; a null list is an empty page."""
    handle, seen = script(
        answer('{"events":[{"event_ticker":"A"}],"cursor":"c1"}'),
        answer('{"events":null,"cursor":"c2"}'),
        answer('{"events":[{"event_ticker":"B"},7],"cursor":""}'),
    )
    async with serving(handle) as (client, _):
        pages = [page async for page in client.events(status="open", with_nested_markets=True)]
    assert [item["event_ticker"] for page in pages for item in page.items] == ["A", "B"]
    assert [bytes(bad.data) for page in pages for bad in page.rejected] == [b"7"]
    assert [request.query.get("cursor") for request in seen] == [None, "c1", "c2"]
    assert seen[2].query["with_nested_markets"] == "true"


async def test_a_cursor_that_comes_twice_is_an_error() -> None:
    """A listing that turns in a circle ends with an error, not never."""
    handle, _ = script(*(answer('{"events":[],"cursor":"same"}') for _ in range(5)))
    async with serving(handle) as (client, _):
        with pytest.raises(PagingBroken, match="twice"):
            _ = [page async for page in client.multivariate_events()]


async def test_an_endless_listing_is_bounded() -> None:
    """New cursors for ever end with an error too."""
    number = iter(range(100))

    async def handle(_request: web.Request) -> web.StreamResponse:
        return answer(f'{{"markets":[],"cursor":"{next(number)}"}}')

    async with serving(handle, RestSettings(pages_max=4)) as (client, _):
        with pytest.raises(PagingBroken, match="no end after 4"):
            _ = [page async for page in client.markets(mve_filter="exclude", min_updated_ts=NOW)]


async def test_markets_are_asked_for_by_when_they_close() -> None:
    """The bounds are widened to whole seconds, and a bound in another unit is refused."""
    handle, seen = script(answer('{"markets":[{"ticker":"M"}],"cursor":""}'))
    async with serving(handle) as (client, _):
        pages = client.markets(status="closed", min_close_ts=NOW + 1, max_close_ts=NOW + 1)
        (page,) = [page async for page in pages]
        with pytest.raises(ValueError, match="min_close_ts is in microseconds"):
            _ = [page async for page in client.markets(min_close_ts=1_781_159_489)]
    assert page.items == ({"ticker": "M"},)
    query = seen[0].query
    assert (query["min_close_ts"], query["max_close_ts"]) == ("1781159489", "1781159490")
    assert query["status"] == "closed"


async def test_trades_are_typed_and_a_bad_one_costs_only_itself() -> None:
    """The tape's bounds are widened to whole seconds; a malformed trade is handed out as rejected."""
    good = (
        '{"trade_id":"t","ticker":"K","count_fp":"1.00","yes_price_dollars":"0.1","no_price_dollars":"0.9",'
        '"created_time":"2026-06-15T15:48:42Z"}'
    )
    handle, seen = script(answer(f'{{"trades":[{good},{{"trade_id":1}}],"cursor":""}}'))
    async with serving(handle) as (client, _):
        (page,) = [page async for page in client.trades("K", NOW + 1, NOW + 1)]
        with pytest.raises(ValueError, match="microseconds"):
            _ = [page async for page in client.trades("K", 1_781_159_489)]
    assert [trade.trade_id for trade in page.items] == ["t"]
    assert page.rejected[0].data == b'{"trade_id":1}'
    assert (seen[0].query["min_ts"], seen[0].query["max_ts"]) == ("1781159489", "1781159490")


async def test_books_one_and_many() -> None:
    """A single book gets its ticker; the batch repeats `tickers` and takes 1 to 100."""
    handle, seen = script(
        answer('{"orderbook_fp":{"yes_dollars":[["0.1","2.00"]]}}'),
        answer('{"orderbooks":[{"ticker":"B","orderbook_fp":{}},{"ticker":"C"}]}'),
    )
    async with serving(handle) as (client, _):
        book = await client.orderbook("A")
        page = await client.orderbooks(["B", "C"])
        with pytest.raises(ValueError, match="1 to 100"):
            await client.orderbooks([])
        with pytest.raises(ValueError, match="1 to 100"):
            await client.orderbooks(["A"] * 101)
    assert (book.value.ticker, book.value.orderbook_fp.yes_dollars) == ("A", [("0.1", "2.00")])
    assert [item.ticker for item in page.items] == ["B"]
    assert len(page.rejected) == 1
    assert seen[1].query.getall("tickers") == ["B", "C"]


async def test_series_and_market() -> None:
    """The series come as one page; a market without its object is Undecodable."""
    handle, seen = script(
        answer('{"series":[{"ticker":"S"}]}'), answer('{"market":{"ticker":"M"}}'), answer("{}"),
        answer("{}"), answer('{"exchange_active":"x"}'),
    )  # fmt: skip
    async with serving(handle) as (client, _):
        page = await client.series(category="Sports", min_updated_ts=NOW)
        assert page.items == ({"ticker": "S"},)
        assert (await client.market("M")).value == {"ticker": "M"}
        with pytest.raises(Undecodable, match="no market"):
            await client.market("M")
        with pytest.raises(Undecodable, match="without series"):
            await client.series()
        with pytest.raises(Undecodable, match="exchange_active"):
            await client.exchange_status()
    assert seen[0].query["min_updated_ts"] == "1781159489"


async def test_silence_and_too_much_are_transport_errors() -> None:
    """A server that does not answer in time, a body above the limit and a closed port are retryable faults."""
    released = asyncio.Event()

    async def silent(_request: web.Request) -> web.StreamResponse:
        await released.wait()
        return answer(STATUS)

    settings = RestSettings(request_timeout_s=0.05, attempts_max=2)
    async with serving(silent, settings) as (client, _):
        with pytest.raises(TransportError, match="no answer in time"):
            await client.exchange_status()
        released.set()
    handle, _ = script(answer("{" + " " * 1000 + "}"))
    async with serving(handle, RestSettings(body_bytes_max=100, attempts_max=1)) as (client, _):
        with pytest.raises(TransportError, match="more than 100 bytes"):
            await client.exchange_status()
    async with open_session() as session:
        client = RestClient(
            client._base_url,
            None,
            TokenBucket(9, 9),
            StepClock(),
            session,
            RestSettings(attempts_max=1),
        )
        with pytest.raises(TransportError, match="GET /exchange/status: Client"):
            await client.exchange_status()


async def test_every_attempt_takes_its_turn_in_the_bucket() -> None:
    """The budget holds over all requests: four at ten a second with a burst of one take 0.3 seconds."""
    handle, _ = script(*(answer(STATUS) for _ in range(4)))
    async with serving(handle) as (client, clock):
        client._bucket = TokenBucket(10, 1)
        for _ in range(4):
            await client.exchange_status()
    assert clock.seconds == pytest.approx(0.3)


async def test_every_attempt_is_counted_by_endpoint_and_status() -> None:
    """A market's name is no endpoint; an attempt without an answer counts too."""
    handle, _ = script(
        answer("{}", 503),
        answer('{"market":{}}'),
        answer('{"orderbook_fp":{}}', 404),
        answer(STATUS),
    )
    counted: list[tuple[str, str]] = []
    async with serving(handle) as (client, _):
        client._count = lambda endpoint, status: counted.append((endpoint, status))
        await client.market("A-B.9")
        with pytest.raises(ApiError):
            await client.orderbook("A-B.9")
        await client.exchange_status()
    client.settings = RestSettings(attempts_max=1)
    async with open_session() as client._session:
        with pytest.raises(TransportError):
            await client.exchange_schedule()
    assert counted == [
        ("/markets/{ticker}", "503"),
        ("/markets/{ticker}", "200"),
        ("/markets/{ticker}/orderbook", "404"),
        ("/exchange/status", "200"),
        ("/exchange/schedule", "none"),
    ]
