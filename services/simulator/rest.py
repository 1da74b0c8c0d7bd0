"""The exchange's REST interface under /trade-api/v2: who may read, how often, and where an answer comes from.

A request is judged in this order: signature (reads need none, but a wrong one is refused), faults that are on, the
budget, the cache in front of the market reads, and only then a handler. All of it is without I/O; a web server is put
around it by `routes`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from libs.exchange.signing import KEY_HEADER
from libs.marketdata.units import DAY, SECOND, format_rfc3339
from services.simulator import hours
from services.simulator.answers import NOT_FOUND, Answer, flat, found, too_many
from services.simulator.budget import Budgets
from services.simulator.cdn import Cdn
from services.simulator.exchange import Exchange
from services.simulator.keys import KeyRing, Refusal, is_signed
from services.simulator.paging import BadParameter, Query
from services.simulator.rest_listings import RestListings
from services.simulator.rest_trading import RestTrading
from services.simulator.rest_trouble import RestTrouble
from services.simulator.settings import SimulatorSettings

PREFIX: Final = "/trade-api/v2"
CACHED: Final = ("/markets", "/events", "/series", "/historical/")
"""Where answers come through the cache (kalshi-api 1.3)."""
HISTORICAL_AGE: Final = 60 * DAY

Handler = Callable[[Query], Answer]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Args:
        path: decoded, from the root. query: as sent, without the question mark. address: who asks, without a port.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    address: str
    body: bytes = b""


class Rest:
    """Answers over the exchange's state.

    Args:
        now: wall time in microseconds, as the signature check and the markets' status need it.
        trouble: the REST faults that are on.
    """

    def __init__(
        self,
        exchange: Exchange,
        keys: KeyRing,
        now: Callable[[], int],
        settings: SimulatorSettings,
        trouble: RestTrouble,
    ) -> None:
        self.trouble = trouble
        self._exchange = exchange
        self._keys = keys
        self._now = now
        self.budgets = Budgets(settings.tier, settings.books_cost)
        self._cdn = Cdn(settings.seed, int(settings.rest_stale_s_max * SECOND))
        self._too_many = too_many()
        unknown_max = int(settings.rest_unknown_s_max * SECOND)
        self._listings = RestListings(exchange, now, settings.seed, unknown_max)
        self._trading = RestTrading(exchange)
        self._handlers = self._paths()

    def answer(self, asked: Asked) -> Answer:
        """Answer a request whose path is below /trade-api/v2."""
        now = self._now()
        key_id = ""
        path = asked.path.removeprefix(PREFIX)
        if is_signed(asked.headers) or asked.method != "GET" or path == "/account/limits":
            refusal = self._keys.refuse(asked.headers, asked.method, asked.path, now // 1000)
            if refusal is not None:
                return Answer(401, refusal.value)
            key_id = asked.headers[KEY_HEADER]
        trouble = self.trouble.answer(path, key_id, now)
        if trouble is not None:
            return trouble
        if asked.method != "GET":
            return _no_write(asked.body)
        if not self.budgets.allows(key_id, asked.address, now, asked.path):
            self.trouble.throttled(key_id, now)
            return next(self._too_many)
        if not path.startswith(CACHED):
            return self._handle(path, asked.query)
        url = f"{path}?{asked.query}"
        return self._cdn.find(url, now) or self._cdn.fill(url, self._handle(path, asked.query), now)

    def routes(self) -> list[web.RouteDef]:
        """Return the one route of a web server."""

        async def serve(request: web.Request) -> web.Response:
            asked = Asked(
                method=request.method,
                path=request.path,
                query=request.rel_url.raw_query_string,
                headers=request.headers,
                address=request.remote or "",
                body=await request.read(),
            )
            return respond(self.answer(asked))

        return [web.route("*", f"{PREFIX}/{{path:.*}}", serve)]

    def _handle(self, path: str, query: str) -> Answer:
        try:
            read = Query(query)
            handler = self._handlers.get(path)
            return handler(read) if handler is not None else self._one(path, read)
        except BadParameter as error:
            return error.answer

    def _paths(self) -> dict[str, Handler]:
        listings, trading = self._listings, self._trading
        return {
            "/exchange/status": lambda _: found(hours.status(self._now(), self._exchange.pause)),
            "/exchange/schedule": lambda _: found(hours.schedule(self._now())),
            "/series": listings.series_list,
            "/series/fee_changes": lambda _: found({"series_fee_change_arr": []}),
            "/events": listings.events,
            "/events/multivariate": listings.combo_events,
            "/markets": listings.markets,
            "/markets/orderbooks": trading.orderbooks,
            "/markets/trades": trading.trades,
            "/account/limits": lambda _: found(self.budgets.limits()),
            "/account/endpoint_costs": lambda _: found(self.budgets.costs()),
            "/historical/cutoff": lambda _: found(_cutoff(self._now())),
            "/historical/markets": lambda _: found({"markets": [], "cursor": ""}),
            "/historical/trades": lambda _: found({"trades": [], "cursor": ""}),
        }

    def _one(self, path: str, query: Query) -> Answer:
        """Answer a path with a ticker in it."""
        match path.split("/")[1:]:
            case ["series", ticker]:
                return self._listings.series_one(ticker)
            case ["events", ticker]:
                return self._listings.event_one(query, ticker)
            case ["markets", ticker]:
                return self._listings.market_one(ticker)
            case ["markets", ticker, "orderbook"]:
                return self._trading.orderbook(query, ticker)
            case _:
                return NOT_FOUND


def _cutoff(now: int) -> dict[str, object]:
    day = format_rfc3339((now - HISTORICAL_AGE) // DAY * DAY)
    names = ("market_settled_ts", "trades_created_ts", "orders_updated_ts")
    return dict.fromkeys((*names, "market_positions_last_updated_ts"), day)


def _no_write(body: bytes) -> Answer:
    """Answer a write: nobody orders here, but what is no JSON is refused as on the exchange."""
    try:
        json.loads(body or b"{}")
    except ValueError:
        return flat(400, "bad_request", "bad request", "malformed JSON body")
    return NOT_FOUND


def respond(given: Answer) -> web.Response:
    """Turn an answer into a web server's."""
    return web.Response(
        body=given.body,
        status=given.status,
        content_type=given.content_type,
        headers=dict(given.headers),
    )


def answer(body: object, status: int = 200) -> web.Response:
    """Answer with a JSON body."""
    return respond(Answer(status, found(body).body))


def refused(refusal: Refusal) -> web.Response:
    """Answer 401 with the exchange's own words."""
    return respond(Answer(401, refusal.value))
