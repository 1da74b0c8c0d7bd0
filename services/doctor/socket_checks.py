"""The checks that open websockets: at most three are open at once, and every one is closed at its check's end."""

import asyncio
from collections.abc import Sequence

from libs.exchange import commands
from libs.exchange.errors import (
    AuthRejected,
    ExchangeError,
    TransportError,
)
from libs.exchange.transport import Connection
from services.doctor import judge_exchange, judge_feed
from services.doctor.conversation import listen, not_open
from services.doctor.evidence import Evidence, Market
from services.doctor.findings import Finding, fail, ok, skipped, warn
from services.doctor.transcript import Transcript

WEBSOCKET, UNSIGNED, PING = "websocket", "websocket unsigned", "ping"
PING_S = 12.0
"""The exchange pings every 10 s."""
LISTEN_S, LISTEN_QUICK_S = 8.0, 3.0
ANSWER_S = 4.0
ROUNDS = 5
CONNECTION_LOST = "the network or the exchange ends connections: try again"


async def check_websocket(evidence: Evidence) -> Sequence[Finding]:
    """Open a signed connection and ask some questions nothing hangs on, for the time between."""
    clock, transcript = evidence.clock, Transcript()
    ids, began = commands.CommandIds(), evidence.clock.monotonic()
    try:
        async with evidence.connect(evidence.signer) as connection:
            opened_s = clock.monotonic() - began
            for _ in range(ROUNDS):
                command_id = ids.next()
                transcript.say(command_id, "list_subscriptions", "", clock.now())
                await connection.send(commands.list_subscriptions(command_id))
                await listen(connection, transcript, ANSWER_S, transcript.is_answered)
    except ExchangeError as error:
        return [not_open(WEBSOCKET, error, evidence.ends.environment)]
    evidence.stamps += transcript.stamps
    found = f"{evidence.ends.ws_url} opens in {opened_s * 1000:.0f} ms"
    if len(transcript.answers) < ROUNDS:
        ended = f"; {transcript.ended}" if transcript.ended else ""
        return [fail(WEBSOCKET, f"{found}, but does not answer{ended}", CONNECTION_LOST)]
    took = [
        judge_exchange.milliseconds(stamp.received_at - stamp.asked_at)
        for stamp in transcript.stamps
        if stamp.asked_at is not None
    ]
    answers = f", answers in {min(took):.0f} to {max(took):.0f} ms" if took else ""
    return [ok(WEBSOCKET, found + answers)]


async def check_unsigned(evidence: Evidence) -> Sequence[Finding]:
    """Try without a key: it is to be refused."""
    try:
        async with evidence.connect(None):
            return [
                warn(
                    UNSIGNED,
                    "accepted without a key, which is new",
                    "nothing to do; the reference says that it is refused",
                )
            ]
    except AuthRejected:
        return [ok(UNSIGNED, "refused with 401, as it should be")]
    except ExchangeError as error:
        return [not_open(UNSIGNED, error, evidence.ends.environment)]


async def check_ping(evidence: Evidence) -> Sequence[Finding]:
    """Wait on a connection on which nothing but pings can come."""
    if evidence.quick:
        return [skipped(PING, "--quick does not wait for it")]
    clock = evidence.clock
    try:
        async with evidence.connect(evidence.signer) as connection:
            began = connection.last_heard
            while connection.last_heard == began:
                if connection.ended is not None:
                    return [fail(PING, str(connection.ended), CONNECTION_LOST)]
                if clock.monotonic() - began > PING_S:
                    return [
                        fail(
                            PING,
                            f"none within {PING_S:g} s",
                            "captures would take the connection for dead: something between here and the exchange"
                            " (a proxy) swallows pings",
                        )
                    ]
                await asyncio.sleep(0.05)
            after = connection.last_heard - began
    except ExchangeError as error:
        return [not_open(PING, error, evidence.ends.environment)]
    return [ok(PING, f"heard after {after:.1f} s of silence")]


async def check_channels(evidence: Evidence) -> Sequence[Finding]:
    """Subscribe every channel once, listen, and use the commands a capture leans on."""
    market, clock, transcript = evidence.market, evidence.clock, Transcript()
    ids = commands.CommandIds()
    channels = [name for name in judge_feed.CHANNELS if market or name != judge_feed.BOOKS]
    listen_s = LISTEN_QUICK_S if evidence.quick else LISTEN_S
    began = clock.monotonic()
    try:
        async with evidence.connect(evidence.signer) as connection:
            for channel in channels:
                command_id = ids.next()
                tickers = [market.ticker] if market and channel == judge_feed.BOOKS else []
                transcript.say(command_id, "subscribe", channel, clock.now())
                await connection.send(commands.subscribe(command_id, [channel], tickers))
            if market:
                await _use_book(connection, transcript, ids, market, evidence)
            left = listen_s - (clock.monotonic() - began)
            is_done = (lambda: _is_complete(transcript)) if evidence.quick else (lambda: False)
            await listen(connection, transcript, left, is_done)
    except TransportError as error:
        transcript.ended = str(error)
        if not transcript.commands:
            return [not_open("channels", error, evidence.ends.environment)]
    except ExchangeError as error:
        return [not_open("channels", error, evidence.ends.environment)]
    evidence.stamps += transcript.stamps
    return _judge_channels(transcript, evidence, clock.monotonic() - began)


async def _use_book(
    connection: Connection,
    transcript: Transcript,
    ids: commands.CommandIds,
    market: Market,
    evidence: Evidence,
) -> None:
    """Ask for the market's book again and add another market, once the subscription is there."""
    await listen(connection, transcript, ANSWER_S, lambda: bool(transcript.snapshots))
    held = transcript.stream_of(judge_feed.BOOKS)
    if held is None:
        return
    for action, make, ticker in (
        ("get_snapshot", commands.get_snapshot, market.ticker),
        ("add_markets", commands.add_markets, market.other),
    ):
        command_id = ids.next()
        transcript.say(command_id, action, ticker, evidence.clock.now())
        await connection.send(make(command_id, held[0], [ticker]))


def _is_complete(transcript: Transcript) -> bool:
    """Tell whether every command is answered and every channel that speaks has spoken."""
    spoken = [
        held is not None and (held[1].frames > 0 or not expected.speaks)
        for name, expected in judge_feed.CHANNELS.items()
        for held in [transcript.stream_of(name)]
    ]
    return all(spoken) and transcript.is_answered()


def _judge_channels(transcript: Transcript, evidence: Evidence, listened_s: float) -> list[Finding]:
    found = []
    for channel in judge_feed.CHANNELS:
        if transcript.command("subscribe", channel):
            found.append(
                judge_feed.judge_channel(transcript, channel, listened_s, trading=evidence.trading)
            )
        else:
            found.append(skipped(channel, "needs: open market"))
    found.append(judge_feed.judge_schema(transcript))
    if evidence.market:
        found += [
            judge_feed.judge_skip_ack(transcript),
            judge_feed.judge_get_snapshot(transcript),
        ]
    return [*found, *judge_feed.judge_end(transcript)]
