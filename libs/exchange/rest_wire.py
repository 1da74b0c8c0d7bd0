"""The REST answers we read as types; catalogue objects (series, events, markets) stay plain JSON, kept whole."""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from libs.exchange.errors import Undecodable
from libs.exchange.wire import UNREADABLE, Levels

T = TypeVar("T")
Json = dict[str, Any]


class Answer(NamedTuple, Generic[T]):
    """One answer; requested_at and received_at in microseconds, our clock, of the attempt that succeeded."""

    value: T
    requested_at: int
    received_at: int


class Rejected(NamedTuple):
    """One item of a page that could not be read, with the reason."""

    data: bytes
    reason: str


class Page(NamedTuple, Generic[T]):
    """One page of a listing; `rejected` items cost only themselves."""

    items: tuple[T, ...]
    rejected: tuple[Rejected, ...]
    requested_at: int
    received_at: int


class BookSides(msgspec.Struct, gc=False):
    """Bid ladders as [price, count] texts; each side in its own leg. A side may be absent or null."""

    yes_dollars: Levels | None = None
    no_dollars: Levels | None = None


class RestBook(msgspec.Struct, gc=False):
    """GET /markets/{ticker}/orderbook; in the batch endpoint `ticker` says whose book it is."""

    orderbook_fp: BookSides
    ticker: str = ""


class RestTrade(msgspec.Struct, gc=False):
    """One trade of GET /markets/trades."""

    trade_id: str
    ticker: str
    count_fp: str
    yes_price_dollars: str
    no_price_dollars: str
    created_time: str
    taker_outcome_side: str | None = None
    taker_side: str | None = None
    taker_book_side: str | None = None
    is_block_trade: bool | None = None


class ExchangeStatus(msgspec.Struct):
    """GET /exchange/status; also the body of its 500, 503 and 504. `body` is the answer as it came."""

    exchange_active: bool | None = None
    trading_active: bool | None = None
    body: Json = {}


class Budget(msgspec.Struct, gc=False):
    """One token bucket of the account, in tokens; a read costs 10 unless the exchange says otherwise."""

    refill_rate: float
    bucket_capacity: float


class AccountLimits(msgspec.Struct):
    """GET /account/limits."""

    read: Budget
    usage_tier: str = ""
    write: Budget | None = None


class EndpointCost(msgspec.Struct):
    """Tokens of one endpoint whose requests do not cost the usual."""

    method: str
    path: str
    cost: float


class EndpointCosts(msgspec.Struct):
    """GET /account/endpoint_costs."""

    default_cost: float = 0.0
    endpoint_costs: list[EndpointCost] | None = None


class RawAnswer(NamedTuple):
    """One HTTP answer below 400 (or taken as an answer), unread."""

    body: bytes
    requested_at: int
    received_at: int


def decode_answer(raw: RawAnswer, kind: type[T]) -> Answer[T]:
    """Decode a whole answer.

    Raises:
        Undecodable: not of this kind.
    """
    try:
        value = msgspec.json.decode(raw.body, type=kind)
    except UNREADABLE as error:
        raise Undecodable(f"REST answer: {error}") from error
    return Answer(value, raw.requested_at, raw.received_at)


def decode_listing(raw: RawAnswer, name: str) -> tuple[list[msgspec.Raw], str]:
    """Return the undecoded items under `name` and the cursor of a listing's page."""
    fields = decode_answer(raw, dict[str, msgspec.Raw]).value
    try:
        items = msgspec.json.decode(fields[name], type=list[msgspec.Raw] | None)
        cursor = msgspec.json.decode(fields.get("cursor", b'""'), type=str | None)
    except (KeyError, msgspec.DecodeError) as error:
        raise Undecodable(f"REST listing without {name}: {error}") from error
    return items or [], cursor or ""


def decode_page(items: Sequence[msgspec.Raw], kind: type[T], raw: RawAnswer) -> Page[T]:
    """Decode items one by one: a bad one costs only itself."""
    good: list[T] = []
    rejected: list[Rejected] = []
    decoder = msgspec.json.Decoder(kind)
    for item in items:
        try:
            good.append(decoder.decode(item))
        except UNREADABLE as error:
            rejected.append(Rejected(bytes(item), str(error)))
    return Page(tuple(good), tuple(rejected), raw.requested_at, raw.received_at)
