"""The check of price orientation: one market's book by REST and by every way to ask for it on the websocket."""

from collections.abc import Sequence

from libs.exchange import commands
from libs.exchange.convert import rest_ladders
from libs.exchange.errors import ExchangeError
from libs.exchange.probe import subscribe_as_is
from libs.exchange.wire import OrderbookSnapshot
from libs.marketdata.rows import Ladder
from libs.marketdata.units import ValueDoesNotFit
from services.doctor import judge_feed
from services.doctor.conversation import listen
from services.doctor.evidence import Evidence, Market
from services.doctor.findings import Finding, fail, skipped
from services.doctor.judge_book import ORIENTATION, judge_orientation
from services.doctor.judge_exchange import advice_for
from services.doctor.transcript import Transcript

ANSWER_S = 4.0


async def check_orientation(evidence: Evidence) -> Sequence[Finding]:
    """Read one book by REST, and on a connection each by every way to ask for it."""
    market = evidence.market
    assert market is not None
    if not market.rest_no:
        return [skipped(ORIENTATION, "needs: a market with both sides")]
    books: dict[bool | None, OrderbookSnapshot | None] = {}
    try:
        for asked in (False, True, None):
            books[asked] = await _hear_book(evidence, market, asked)
        rest_no = await _rest_no(evidence, market)
    except ExchangeError as error:
        return [fail(ORIENTATION, str(error), advice_for(error))]
    # Two readings some seconds apart: what the socket said between them shares levels with one of them.
    rest_no = tuple(sorted({*rest_no, *market.rest_no}))
    return judge_orientation(books, rest_no, evidence.plan.use_yes_price)


async def _hear_book(
    evidence: Evidence, market: Market, asked: bool | None
) -> OrderbookSnapshot | None:
    """Return the market's snapshot by one use_yes_price; None: not named."""
    transcript = Transcript()
    if asked is None:
        command = subscribe_as_is(1, market.ticker)
    else:
        command = commands.subscribe(1, [commands.ORDERBOOK], [market.ticker], use_yes_price=asked)
    transcript.say(1, "subscribe", judge_feed.BOOKS, evidence.clock.now())
    async with evidence.connect(evidence.signer) as connection:
        await connection.send(command)
        await listen(connection, transcript, ANSWER_S, lambda: bool(transcript.snapshots))
    evidence.stamps += transcript.stamps
    return transcript.snapshots[0] if transcript.snapshots else None


async def _rest_no(evidence: Evidence, market: Market) -> Ladder:
    book = (await evidence.client(evidence.signer).orderbook(market.ticker)).value
    try:
        return rest_ladders(book)[1]
    except ValueDoesNotFit:
        return market.rest_no
