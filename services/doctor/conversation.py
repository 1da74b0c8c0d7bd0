"""One websocket of the doctor: hearing it for a while, and what it means when it does not open."""

import asyncio
from collections.abc import Callable

from libs.exchange.environments import SIMULATOR
from libs.exchange.errors import (
    AuthRejected,
    ClockSkewed,
    ExchangeError,
    RateLimited,
    TransportError,
)
from libs.exchange.probe import cause_of
from libs.exchange.transport import Connection
from services.doctor import judge_exchange, judge_key
from services.doctor.findings import Finding, fail
from services.doctor.transcript import Transcript

FRAMES_AT_ONCE = 512


async def listen(
    connection: Connection, transcript: Transcript, seconds: float, is_enough: Callable[[], bool]
) -> None:
    """Hear frames until it is enough, time is up or the connection ends (transcript.ended says how)."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            while not is_enough():
                for frame in await connection.receive_many(FRAMES_AT_ONCE):
                    transcript.hear(frame)
    except TimeoutError:
        return
    except TransportError as error:
        transcript.ended = str(error)


def not_open(check: str, error: ExchangeError, environment: str) -> Finding:
    """Judge a connection that could not be had."""
    if isinstance(error, AuthRejected | ClockSkewed):
        return judge_key.judge_refusal(check, error, environment)
    if isinstance(error, RateLimited):
        return fail(
            check,
            str(error),
            "the account may hold no more connections now: stop other captures of it, or give this one its own account",
        )
    if environment == SIMULATOR and isinstance(error, TransportError) and cause_of(error) == "tls":
        return fail(check, str(error), "the simulator speaks no TLS: begin its address with ws://")
    return fail(check, str(error), judge_exchange.advice_for(error))
