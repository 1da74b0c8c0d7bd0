"""What only a diagnosis needs: when an answer left the exchange by its own Date, what a key is, why nothing was reached.

The requests themselves are those of RestClient; this session only listens to them, refused ones included.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Literal, NamedTuple

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from libs.exchange.commands import ORDERBOOK
from libs.exchange.errors import TransportError
from libs.exchange.frames import Clock
from libs.exchange.signing import Signer
from libs.exchange.transport import shared_ssl_context

Cause = Literal["name", "refused", "tls", "timeout", "other"]


class Dated(NamedTuple):
    """One HTTP answer of any status: the headers that tell the exchange's time, and ours around it, microseconds.

    sent_at is when the request was written, answered_at when the answer's head was read; `age` is a cache's header.
    """

    path: str
    status: int
    date: str
    age: str
    sent_at: int
    answered_at: int


@asynccontextmanager
async def open_dated_session(
    clock: Clock, seen: Callable[[Dated], None]
) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session for RestClient that tells `seen` of every answer."""

    async def on_sent(
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        _params: aiohttp.TraceRequestHeadersSentParams,
    ) -> None:
        context.sent_at = clock.now()

    async def on_end(
        _session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        now, headers = clock.now(), params.response.headers
        date, age = headers.get("Date", ""), headers.get("Age", "")
        sent_at = getattr(context, "sent_at", now)
        seen(Dated(params.url.path, params.response.status, date, age, sent_at, now))

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(on_sent)
    trace.on_request_end.append(on_end)
    connector = aiohttp.TCPConnector(limit=0, ssl=shared_ssl_context())
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
        yield session


class KeyKind(NamedTuple):
    """What a private key is; bits of an RSA modulus, 0 for Ed25519, which has one size."""

    name: Literal["RSA", "Ed25519"]
    bits: int


def kind_of(signer: Signer) -> KeyKind:
    """Say what kind of key signs."""
    public = signer.public_key
    if isinstance(public, rsa.RSAPublicKey):
        return KeyKind("RSA", public.key_size)
    return KeyKind("Ed25519", 0)


def cause_of(error: TransportError) -> Cause:
    """Say why an address was not reached, as far as the network tells."""
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return "name"
    if isinstance(cause, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch | ssl.SSLError):
        return "tls"
    if isinstance(cause, TimeoutError):
        return "timeout"
    if isinstance(cause, aiohttp.ClientConnectorError):
        refused = isinstance(cause.os_error, ConnectionRefusedError)
        return "refused" if refused or cause.os_error.errno is None else "other"
    return "other"


def subscribe_as_is(command_id: int, ticker: str) -> bytes:
    """Ask for one order book and leave the orientation of its prices to the exchange; no capture ever does."""
    params = {"channels": [ORDERBOOK], "market_tickers": [ticker]}
    return msgspec.json.encode({"id": command_id, "cmd": "subscribe", "params": params})
