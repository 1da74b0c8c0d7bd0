"""The checks that read files and REST: key file, reachability, status, schedule, account, a market to look at."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from libs.exchange.convert import rest_ladders
from libs.exchange.errors import AuthRejected, ClockSkewed, ExchangeError
from libs.exchange.probe import kind_of
from libs.exchange.rest import MARKETS_PER_PAGE, RestClient
from libs.exchange.rest_wire import Json, RestBook, decode_answer
from libs.exchange.signing import load_signer
from libs.marketdata.units import ValueDoesNotFit
from services.doctor import judge_account, judge_exchange, judge_key
from services.doctor.evidence import Evidence, Market
from services.doctor.findings import Finding, fail, ok, warn
from services.doctor.judge_book import telling

MARKET = "open market"
SAMPLES = 5
SAMPLE_STEP_S = 0.21
"""Between two readings for latency and Date; five of them lie all over a second."""
CANDIDATES = 60
"""Markets whose books are looked at to choose one; one request, and below the address's longest line."""


async def check_key_file(evidence: Evidence) -> Sequence[Finding]:
    """Load the key as every service does."""
    return [_load_key(evidence)]


async def check_reach(evidence: Evidence) -> Sequence[Finding]:
    """Read the status some times; the first answer pays for opening the connection and does not count."""
    client = evidence.client(None)
    try:
        await client.exchange_status()
        before = len(evidence.dated)
        for _ in range(SAMPLES):
            await asyncio.sleep(SAMPLE_STEP_S)
            await client.exchange_status()
    except ExchangeError as error:
        return [fail(judge_exchange.REST, str(error), judge_exchange.advice_for(error))]
    times = [
        judge_exchange.milliseconds(answer.answered_at - answer.sent_at)
        for answer in evidence.dated[before:]
    ]
    return [judge_exchange.judge_reach(evidence.ends.rest_url, times or [0.0])]


async def check_status(evidence: Evidence) -> Sequence[Finding]:
    """Read whether trading is active."""
    try:
        status = (await evidence.client(None).exchange_status()).value
    except ExchangeError as error:
        return [fail(judge_exchange.STATUS, str(error), judge_exchange.advice_for(error))]
    evidence.trading = bool(status.exchange_active and status.trading_active)
    return [judge_exchange.judge_status(status)]


async def check_schedule(evidence: Evidence) -> Sequence[Finding]:
    """Read when the next maintenance is."""
    try:
        schedule = (await evidence.client(None).exchange_schedule()).value
    except ExchangeError as error:
        return [warn(judge_exchange.SCHEDULE, str(error), judge_exchange.advice_for(error))]
    return [judge_exchange.judge_schedule(schedule, evidence.clock.now())]


async def check_account(evidence: Evidence) -> Sequence[Finding]:
    """Ask, signed, for the account's budget: whoever is answered has an accepted key."""
    client = evidence.client(evidence.signer)
    exchange = evidence.settings.exchange
    try:
        limits = (await client.account_limits()).value
    except (AuthRejected, ClockSkewed) as error:
        return [judge_key.judge_refusal(judge_key.ACCEPTED, error, exchange.environment)]
    except ExchangeError as error:
        return [fail(judge_key.ACCEPTED, str(error), judge_exchange.advice_for(error))]
    evidence.limits = limits
    return [
        ok(judge_key.ACCEPTED, f"key {exchange.api_key_id[:8]}... on {exchange.environment}"),
        judge_key.judge_scopes(await _scopes(client, exchange.api_key_id)),
    ]


async def check_budget(evidence: Evidence) -> Sequence[Finding]:
    """Say what capturing would take of the account's reads."""
    limits = evidence.limits
    assert limits is not None
    costs = await _optional(evidence.client(None), "/account/endpoint_costs")
    return [
        judge_account.judge_budget(
            limits,
            judge_account.cost_of_books(costs),
            evidence.settings.exchange.reads_per_s,
            evidence.plan,
            evidence.open_markets,
        )
    ]


async def check_market(evidence: Evidence) -> Sequence[Finding]:
    """Choose a busy market whose book tells its orientation."""
    client = evidence.client(None)
    try:
        page = await anext(client.markets(status="open", mve_filter="exclude"))
        tape = await anext(client.trades(limit=200))
        names = [name for item in page.items if isinstance(name := item.get("ticker"), str)]
        if len(names) < MARKETS_PER_PAGE:
            evidence.open_markets = len(names)
        is_open = set(names)
        traded = [name for name, _ in Counter(t.ticker for t in tape.items).most_common()]
        # A page holds one market in a hundred of the real exchange: what was just traded is open anyway.
        wanted = dict.fromkeys([*(n for n in traded if not n.startswith("KXMVE")), *is_open])
        candidates = [*wanted][:CANDIDATES]
        if not candidates:
            return [fail(MARKET, "no open market", "the exchange lists none: try again later")]
        books = (await evidence.client(evidence.signer).orderbooks(candidates)).items
    except (ExchangeError, StopAsyncIteration) as error:
        known = error if isinstance(error, ExchangeError) else ExchangeError("no answer")
        return [fail(MARKET, str(known), judge_exchange.advice_for(known))]
    evidence.market, is_telling = _choose(candidates, books)
    number = "over 1,000" if evidence.open_markets is None else f"{evidence.open_markets:,}"
    found = f"{evidence.market.ticker}, of {number} open markets (combos not counted)"
    if not is_telling:
        return [
            warn(MARKET, f"{found}; no book has both sides", "run it again when trading is active")
        ]
    return [ok(MARKET, found)]


def _load_key(evidence: Evidence) -> Finding:
    exchange = evidence.settings.exchange
    path = Path(exchange.private_key_file).expanduser()
    try:
        signer = load_signer(exchange.api_key_id, exchange.private_key_file)
        mode = path.stat().st_mode
    except AuthRejected as error:
        said, _, advice = str(error).partition("; ")
        return fail(judge_key.FILE, said, advice or "name the PEM file of the key")
    except OSError as error:
        return fail(judge_key.FILE, f"{path}: {error.strerror}", "check the path and its owner")
    evidence.signer = signer
    return judge_key.judge_key_file(str(path), kind_of(signer), mode)


def _choose(candidates: Sequence[str], books: Sequence[RestBook]) -> tuple[Market, bool]:
    """Return the first of `candidates` whose book tells its orientation best; when none does, just the first."""
    by_ticker = {book.ticker: book for book in books}
    best, chosen = 0, Market(candidates[0], (), _another(candidates, candidates[0]))
    for ticker in candidates:
        if ticker not in by_ticker:
            continue
        try:
            yes, no = rest_ladders(by_ticker[ticker])
        except ValueDoesNotFit:
            continue
        if (rank := telling(yes, no)) > best:
            best, chosen = rank, Market(ticker, no, _another(candidates, ticker))
    return chosen, best > 0


def _another(candidates: Sequence[str], but: str) -> str:
    return next((ticker for ticker in candidates if ticker != but), but)


async def _scopes(client: RestClient, key_id: str) -> list[str] | None:
    """Return this key's scopes; None when the exchange does not show them to it."""
    body = await _optional(client, "/api_keys")
    keys = body.get("api_keys") if body else None
    for key in keys if isinstance(keys, list) else ():
        if isinstance(key, dict) and key.get("api_key_id") == key_id.strip():
            scopes = key.get("scopes")
            return [str(scope) for scope in scopes] if isinstance(scopes, list) else None
    return None


async def _optional(client: RestClient, path: str) -> Json | None:
    """Read what may not be there for everybody."""
    try:
        return decode_answer(await client.request(path), Json).value
    except ExchangeError:
        return None
