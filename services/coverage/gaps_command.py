"""`kalshi-data gaps`: who listened to a market or channel, what nobody heard, and why."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from libs.store.coverage_records import Gatherer, SpanReader
from libs.store.errors import StoreError
from libs.store.pool import Target, connect
from services.coverage.heard import ChannelHeard, channel_heard
from services.coverage.question import (
    EXIT_AWAY,
    EXIT_OK,
    EXIT_USAGE,
    Question,
    find_production,
    iso,
    make_parser,
    parse,
)
from services.coverage.show import Names, Show
from services.coverage.tables import causes_table, claims_table, shares_table, unheard_table

DESCRIPTION = """
Who listened to a market or channel, from when to when; what nobody heard, with the recorded causes, longest first; and
which share that is. A channel is judged between the first and the last claim that anybody makes in the span.
"""


def main(argv: Sequence[str]) -> int:
    """Run; return 0, 1 when production is away or refuses, 2 when the words or the configuration are not usable."""
    parser = make_parser("gaps", DESCRIPTION)
    arguments, question = parse(parser, argv)
    production = find_production("gaps", arguments.config)
    if production is None:
        return EXIT_USAGE
    try:
        gatherers, channels = asyncio.run(read_heard(production, question))
    except StoreError as error:
        sys.stderr.write(f"gaps: {production.address}: {error}\n")
        return EXIT_AWAY
    names, show = Names(gatherers), Show(is_json=arguments.json)
    show.document(document(question, channels, names))
    show.heading(question)
    for heard in channels:
        if heard.first is not None or heard.causes:
            show.table(claims_table(heard, names))
        if heard.unheard:
            show.table(unheard_table(heard, names))
        if heard.causes:
            show.table(causes_table(heard, names))
    if any(heard.claims for heard in channels):
        show.table(shares_table(channels, names))
    for heard in channels:
        show.say(_in_words(heard))
    return EXIT_OK


async def read_heard(
    production: Target, question: Question
) -> tuple[list[Gatherer], list[ChannelHeard]]:
    """Ask production, channel by channel. Raises StoreError."""
    span = (question.start, question.end)
    async with connect(production, "kalshi-data gaps") as conn:
        reader = SpanReader(conn, *span)
        gatherers = await reader.gatherers()
        numbers = [gatherer.gatherer for gatherer in gatherers if gatherer.status != "replaced"]
        names, channels = Names(gatherers), []
        for channel in question.channels:
            claims = await reader.claims(channel, question.market)
            causes = await reader.causes(channel, question.market)
            told = names.in_order({*numbers, *(claim.gatherer for claim in claims)})
            channels.append(channel_heard(channel, claims, causes, told, span))
    return gatherers, channels


def _in_words(heard: ChannelHeard) -> str:
    if heard.first is None or heard.last is None:
        return f"{heard.channel}: nobody claims anything in this span."
    count = len(heard.unheard)
    gaps = "somebody heard every moment"
    if count:
        gaps = f"{count:,} span{'s' if count > 1 else ''} that nobody heard"
    bounds = f"between the first claim {iso(heard.first)} and the last {iso(heard.last)}"
    return f"{heard.channel}: {gaps} {bounds}."


def document(question: Question, channels: Sequence[ChannelHeard], names: Names) -> dict[str, Any]:
    """Return the answer for programs: all of it, times as ISO 8601."""
    return {
        "market": question.market,
        "from": iso(question.start),
        "to": iso(question.end),
        "channels": {heard.channel: _channel(heard, names) for heard in channels},
    }


def _channel(heard: ChannelHeard, names: Names) -> dict[str, Any]:
    return {
        "first_claim": None if heard.first is None else iso(heard.first),
        "last_claim": None if heard.last is None else iso(heard.last),
        "listened": [
            {
                "gatherer": claim.gatherer, "zone": names.of(claim.gatherer), "connection": str(claim.connection),
                "market": claim.ticker, "from": iso(claim.from_ts), "to": iso(claim.to_ts), "ended": claim.ended,
            }
            for claim in heard.claims
        ],
        "unheard": [
            {
                "market": gap.ticker, "from": iso(gap.from_ts), "to": iso(gap.to_ts), "seconds": gap.length / 1e6,
                "causes": [_cause(cause, names) for cause in gap.causes],
            }
            for gap in heard.unheard
        ],
        "causes": [_cause(cause, names) for cause in heard.causes],
        "shares": {
            names.of(lane.gatherer): {"share": lane.share, "subjects": lane.subjects} for lane in heard.lanes
        },
    }  # fmt: skip


def _cause(cause: Any, names: Names) -> dict[str, Any]:
    return {
        "gatherer": cause.gatherer, "zone": names.of(cause.gatherer), "slot": cause.slot, "market": cause.ticker,
        "reason": cause.reason, "detail": cause.detail, "from": iso(cause.from_ts), "to": iso(cause.to_ts),
        "rows_lost": cause.rows_lost,
    }  # fmt: skip
