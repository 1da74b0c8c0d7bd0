"""How the exchange answers the commands of a client (kalshi-api.md 3.2, 3.3)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from services.simulator.commands import (
    ERRORS,
    CommandFailed,
    flag,
    id_of,
    integers,
    parse_command,
    strings,
    tickers_of,
)
from services.simulator.subscription import BOOKS, BY_MARKET, CHANNELS, TICKERS, Subscription

if TYPE_CHECKING:
    from services.simulator.session import Session

_FLAGS = ("use_yes_price", "skip_ticker_ack", "send_initial_snapshot")


def obey(session: "Session", data: str | bytes) -> None:
    """Do one command; what cannot be done is answered with its error."""
    command_id: int | None = None
    try:
        command_id, command, params = parse_command(data)
        _admit(session, params)
        _COMMANDS[command](session, command_id, params)
    except CommandFailed as failure:
        failed_id = command_id if command_id is not None else id_of(data)
        _fail(session, failed_id, failure.code, failure.sid)


def _admit(session: "Session", params: dict[str, Any]) -> None:
    """Refuse a command that comes too fast, or that a fault wants refused."""
    if not session.rate.takes(session.now_ms):
        raise CommandFailed(27, _sid_named(session, params))
    if session.refusals:
        code, number = session.refusals.popleft()
        sid = _sid_named(session, params)
        facts: dict[str, object] = {} if sid is None else {"sid": sid}
        session.note("fault", phase="hit", fault="error", number=number, code=code, **facts)
        raise CommandFailed(code, sid)


def _sid_named(session: "Session", params: dict[str, Any]) -> int | None:
    """Return the one subscription a command is about; None when there is none, or more than one."""
    listed = params.get("sids")
    named = [*(listed if isinstance(listed, list) else ()), params.get("sid")]
    found = [sid for sid in named if type(sid) is int and sid in session.subscriptions]
    return found[0] if len(found) == 1 else None


def _subscribe(session: "Session", command_id: int | None, params: dict[str, Any]) -> None:
    channels = strings(params, "channels")
    if not channels:
        raise CommandFailed(3)
    if any(channel not in CHANNELS for channel in channels):
        raise CommandFailed(8)
    tickers = _named_markets(session, params)
    if BOOKS in channels and not tickers_of(params):
        raise CommandFailed(14)
    flags = {name: flag(params, name) for name in _FLAGS}
    # Who names markets that are not known subscribes to nothing that is, as with tickers, not to everything.
    named = tickers if _names_markets(params) else None
    # As recorded: every channel is answered before the first snapshot comes.
    held = [
        _open(session, command_id, channel, named, flags) for channel in dict.fromkeys(channels)
    ]
    for subscription in held:
        if subscription is not None:
            _add(session, subscription, tickers, flags["send_initial_snapshot"])


def _open(
    session: "Session",
    command_id: int | None,
    channel: str,
    tickers: list[str] | None,
    flags: dict[str, bool],
) -> Subscription | None:
    """Answer for one channel; returns its subscription, None when the markets are too many for it. tickers: None: all."""
    everything = channel not in BY_MARKET or tickers is None
    subscription = session.by_channel(channel)
    if (
        tickers is not None
        and not everything
        and _is_too_many(session, channel, subscription, tickers)
    ):
        sid = None if subscription is None else subscription.sid
        _fail(session, command_id, 26, sid)
        return None
    if subscription is None:
        subscription = session.open(channel, everything)
        subscription.use_yes_price = flags["use_yes_price"]
        subscription.skip_ticker_ack = flags["skip_ticker_ack"]
        session.note(
            "subscribed",
            sid=subscription.sid,
            channel=channel,
            use_yes_price=subscription.use_yes_price,
            everything=everything,
        )
        if everything:
            session.feed.join(subscription, None)
    body = {"channel": channel, "sid": subscription.sid}
    session.answer("subscribed", command_id, body, None)
    return subscription


def _is_too_many(
    session: "Session", channel: str, subscription: Subscription | None, tickers: list[str]
) -> bool:
    """Say whether these markets are more than a subscription, or all books of the session, may have."""
    held = subscription.tickers if subscription is not None else {}
    if held is None:
        return False
    count = len(held.keys() | set(tickers))
    limits = session.limits
    if limits.subscription_markets and count > limits.subscription_markets:
        return True
    return channel == BOOKS and count > limits.session_markets


def _add(session: "Session", subscription: Subscription, tickers: list[str], initial: bool) -> None:
    """Add markets: books send their snapshots first (by ticker, as recorded), tickers the last one when asked to."""
    known = subscription.tickers
    if known is None:
        return
    fresh = [ticker for ticker in dict.fromkeys(tickers) if ticker not in known]
    known.update(dict.fromkeys(fresh))
    if fresh:
        session.note("added", sid=subscription.sid, tickers=fresh)
    if subscription.channel == BOOKS and session.feed.opens_with_snapshots:
        for ticker in sorted(fresh):
            session.send_snapshot(subscription, ticker)
    session.feed.join(subscription, fresh)
    if subscription.channel == TICKERS and initial:
        for ticker in tickers:
            session.feed.send_last_ticker(subscription, ticker)


def _update(session: "Session", command_id: int | None, params: dict[str, Any]) -> None:
    subscription = _the_one(session, params)
    action = params.get("action")
    if action is None or action == "":
        raise CommandFailed(15, subscription.sid)
    channel = subscription.channel
    supported = action in ("add_markets", "delete_markets") and channel in BY_MARKET
    if not supported and not (action == "get_snapshot" and channel == BOOKS):
        raise CommandFailed(13, subscription.sid)
    tickers = _named_markets(session, params) if channel == TICKERS else tickers_of(params)
    if not tickers:
        raise CommandFailed(14, subscription.sid)
    if action == "get_snapshot":
        for ticker in tickers:
            session.send_snapshot(subscription, ticker, command_id)
    elif action == "delete_markets":
        _remove(session, subscription, tickers)
        _acknowledge(session, command_id, subscription)
    elif _is_too_many(session, channel, subscription, tickers):
        raise CommandFailed(26, subscription.sid)
    else:
        # The acknowledgement names the list with the new markets in it, and goes before their snapshots.
        initial = flag(params, "send_initial_snapshot")
        before = subscription.tickers
        listed = None if before is None else dict.fromkeys([*before, *tickers])
        _acknowledge(session, command_id, subscription, listed)
        _add(session, subscription, tickers, initial)


def _remove(session: "Session", subscription: Subscription, tickers: list[str]) -> None:
    known = subscription.tickers
    if known is None:
        raise CommandFailed(11, subscription.sid)
    gone = [ticker for ticker in dict.fromkeys(tickers) if ticker in known]
    for ticker in gone:
        del known[ticker]
    if gone:
        session.feed.leave(subscription, gone)
        session.note("removed", sid=subscription.sid, tickers=gone)


def _acknowledge(
    session: "Session",
    command_id: int | None,
    subscription: Subscription,
    listed: dict[str, None] | None = None,
) -> None:
    tickers = subscription.tickers if listed is None else listed
    body: dict[str, list[str]] = {}
    if tickers is not None and not subscription.skip_ticker_ack:
        body["market_tickers"] = list(tickers)
        if subscription.channel == TICKERS:
            ids = (session.feed.market_id_of(ticker) for ticker in tickers)
            body["market_ids"] = [market_id for market_id in ids if market_id]
    subscription.answer("ok", command_id, body)


def _unsubscribe(session: "Session", command_id: int | None, params: dict[str, Any]) -> None:
    sids = integers(params, "sids")
    if not sids:
        raise CommandFailed(4)
    for sid in sids:
        subscription = session.subscriptions.get(sid)
        if subscription is None:
            _fail(session, command_id, 7, None)
            continue
        session.drop(subscription, "unsubscribed")
        subscription.answer("unsubscribed", command_id)


def _fail(session: "Session", command_id: int | None, code: int, sid: int | None) -> None:
    """Answer with an error; one about a subscription has its sid and takes a number."""
    body = {"code": code, "msg": ERRORS[code]}
    if sid is None:
        session.answer("error", command_id, body, None)
    else:
        session.subscriptions[sid].answer("error", command_id, body)


def _list(session: "Session", command_id: int | None, _params: dict[str, Any]) -> None:
    body = [
        {"channel": subscription.channel, "sid": subscription.sid}
        for subscription in session.subscriptions.values()
    ]
    session.answer("ok", command_id, body, None)


def _the_one(session: "Session", params: dict[str, Any]) -> Subscription:
    sids = integers(params, "sids")
    sid = params.get("sid")
    if sid is not None:
        if type(sid) is not int:
            raise CommandFailed(1)
        sids = [*sids, sid]
    if len(sids) != 1:
        raise CommandFailed(12)
    subscription = session.subscriptions.get(sids[0])
    if subscription is None:
        raise CommandFailed(7)
    return subscription


def _names_markets(params: dict[str, Any]) -> bool:
    ids = [*strings(params, "market_ids"), params.get("market_id")]
    return bool(tickers_of(params)) or any(isinstance(name, str) and name for name in ids)


def _named_markets(session: "Session", params: dict[str, Any]) -> list[str]:
    """Return the tickers named directly or by market id (ids that are not known name nothing)."""
    ids = strings(params, "market_ids")
    single = params.get("market_id")
    if isinstance(single, str):
        ids = [*ids, single]
    found = [session.feed.ticker_of(market_id) for market_id in ids]
    return [*tickers_of(params), *(ticker for ticker in found if ticker is not None)]


_COMMANDS: dict[str, Callable[["Session", int | None, dict[str, Any]], None]] = {
    "subscribe": _subscribe,
    "update_subscription": _update,
    "unsubscribe": _unsubscribe,
    "list_subscriptions": _list,
}
