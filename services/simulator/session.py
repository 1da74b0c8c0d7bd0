"""What the exchange knows of one connection, and how it answers commands. No I/O: frames go to `out`.

Rules (all of the exchange's): a connection has at most one subscription per channel, subscribing again adds to it; seq
counts per sid over all its markets, and `ok`, `unsubscribed` and `error` frames that carry a sid take a number too;
`subscribed` carries its sid only inside `msg`; ticker frames have no seq; every frame ends with a newline.
"""

from collections.abc import Callable
from typing import Any

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
from services.simulator.frames import encode, snapshot_body
from services.simulator.subscription import BOOKS, BY_MARKET, CHANNELS, TICKERS, Feed, Subscription


class Session:
    """One connection.

    Args:
        number: of the connection, from 1. feed: where data come from. note: takes a line of the session journal.
        sids: sid by channel that a recording replayed verbatim asks for. stamps: put sending_ts_ms on every frame.
    """

    def __init__(
        self,
        number: int,
        feed: Feed,
        note: Callable[[dict[str, object]], None],
        sids: dict[str, int] | None = None,
        stamps: bool = True,
    ) -> None:
        self.number = number
        self.feed = feed
        self.out: list[bytes] = []
        """Frames to send, in order; whoever sends them empties the list through `take_out`."""
        self.written: set[Subscription] = set()
        """Subscriptions with frames in `out`: those that die when it cannot be sent."""
        self.subscriptions: dict[int, Subscription] = {}
        self.stamp = b""
        self.now_ms = 0
        self._note = note
        self._sids = sids or {}
        self._stamps = stamps
        self._last_sid = 0

    def set_time(self, now_ms: int) -> None:
        """Set the moment of sending for the frames to come."""
        if now_ms != self.now_ms:
            self.now_ms = now_ms
            self.stamp = b',"sending_ts_ms":%d' % now_ms if self._stamps else b""

    def take_out(self) -> list[bytes]:
        frames, self.out = self.out, []
        self.written.clear()
        return frames

    def receive(self, data: str | bytes, now_ms: int) -> None:
        """Take one frame of the client; answers and snapshots go to `out`."""
        self.set_time(now_ms)
        command_id: int | None = None
        try:
            command_id, command, params = parse_command(data)
            _COMMANDS[command](self, command_id, params)
        except CommandFailed as failure:
            body = {"code": failure.code, "msg": ERRORS[failure.code]}
            failed_id = command_id if command_id is not None else id_of(data)
            if failure.sid is None:
                self.answer("error", failed_id, body, None)
            else:
                self.subscriptions[failure.sid].answer("error", failed_id, body)

    def answer(
        self, message_type: str, command_id: int | None, body: object, about: Subscription | None
    ) -> None:
        frame: dict[str, object] = {"type": message_type}
        if command_id is not None:
            frame["id"] = command_id
        if about is not None:
            frame |= {"sid": about.sid, "seq": about.seq}
        if self._stamps:
            frame["sending_ts_ms"] = self.now_ms
        if body is not None:
            frame["msg"] = body
        self.out.append(encode(frame) + b"\n")

    def note(self, kind: str, **fields: object) -> None:
        self._note({"kind": kind, "at": self.now_ms * 1000, "connection": self.number, **fields})

    def overflow(self, now_ms: int) -> None:
        """Throw away what could not be sent: its subscriptions end with error 25."""
        self.set_time(now_ms)
        victims = sorted(self.written, key=lambda subscription: subscription.sid)
        self.take_out()
        for subscription in victims:
            if subscription.sid in self.subscriptions:
                self._drop(subscription, "overflow")
                subscription.answer("error", None, {"code": 25, "msg": ERRORS[25]})

    def close(self, now_ms: int) -> None:
        """Forget every subscription: the connection is gone."""
        self.set_time(now_ms)
        for subscription in list(self.subscriptions.values()):
            del self.subscriptions[subscription.sid]
            self.feed.leave(subscription, None)
        self.out.clear()

    def by_channel(self, channel: str) -> Subscription | None:
        for subscription in self.subscriptions.values():
            if subscription.channel == channel:
                return subscription
        return None

    def send_snapshot(
        self, subscription: Subscription, ticker: str, command_id: int | None = None
    ) -> None:
        """Send a market's book in the subscription's own sequence, and note what was sent."""
        market_id, yes, no, position = self.feed.snapshot(subscription, ticker)
        body = snapshot_body(ticker, market_id, yes, no, subscription.use_yes_price)
        subscription.send("orderbook_snapshot", body, command_id)
        self.note(
            "snapshot",
            sid=subscription.sid,
            seq=subscription.seq,
            ticker=ticker,
            yes=yes,
            no=no,
            position=position,
            sent_at=self.now_ms * 1000,
        )

    def _subscribe(self, command_id: int | None, params: dict[str, Any]) -> None:
        channels = strings(params, "channels")
        if not channels:
            raise CommandFailed(3)
        if any(channel not in CHANNELS for channel in channels):
            raise CommandFailed(8)
        tickers = self._named_markets(params)
        if BOOKS in channels and not tickers_of(params):
            raise CommandFailed(14)
        flags = {
            name: flag(params, name)
            for name in ("use_yes_price", "skip_ticker_ack", "send_initial_snapshot")
        }
        for channel in dict.fromkeys(channels):
            self._open(command_id, channel, tickers, flags)

    def _open(
        self, command_id: int | None, channel: str, tickers: list[str], flags: dict[str, bool]
    ) -> None:
        everything = channel not in BY_MARKET or not tickers
        subscription = self.by_channel(channel)
        if subscription is None:
            sid = self._sids.get(channel, self._last_sid + 1)
            self._last_sid = max(sid, self._last_sid)
            subscription = Subscription(self, sid, channel, everything)
            subscription.use_yes_price = flags["use_yes_price"]
            subscription.skip_ticker_ack = flags["skip_ticker_ack"]
            self.subscriptions[sid] = subscription
            self.note(
                "subscribed",
                sid=sid,
                channel=channel,
                use_yes_price=subscription.use_yes_price,
                everything=everything,
            )
            if everything:
                self.feed.join(subscription, None)
        body = {"channel": channel, "sid": subscription.sid}
        self.answer("subscribed", command_id, body, None)
        if not everything:
            self._add(subscription, tickers, flags["send_initial_snapshot"])

    def _add(self, subscription: Subscription, tickers: list[str], initial: bool) -> None:
        """Add markets: books send their snapshots first, tickers the last one when asked to."""
        known = subscription.tickers
        if known is None:
            return
        fresh = [ticker for ticker in dict.fromkeys(tickers) if ticker not in known]
        known.update(dict.fromkeys(fresh))
        if fresh:
            self.note("added", sid=subscription.sid, tickers=fresh)
        if subscription.channel == BOOKS and self.feed.opens_with_snapshots:
            for ticker in fresh:
                self.send_snapshot(subscription, ticker)
        self.feed.join(subscription, fresh)
        if subscription.channel == TICKERS and initial:
            for ticker in tickers:
                self.feed.send_last_ticker(subscription, ticker)

    def _update(self, command_id: int | None, params: dict[str, Any]) -> None:
        subscription = self._the_one(params)
        action = params.get("action")
        if action is None or action == "":
            raise CommandFailed(15, subscription.sid)
        channel = subscription.channel
        supported = action in ("add_markets", "delete_markets") and channel in BY_MARKET
        if not supported and not (action == "get_snapshot" and channel == BOOKS):
            raise CommandFailed(13, subscription.sid)
        tickers = self._named_markets(params) if channel == TICKERS else tickers_of(params)
        if not tickers:
            raise CommandFailed(14, subscription.sid)
        if action == "get_snapshot":
            for ticker in tickers:
                self.send_snapshot(subscription, ticker, command_id)
            return
        if action == "delete_markets":
            self._remove(subscription, tickers)
            self._acknowledge(command_id, subscription)
            return
        # The acknowledgement names the list with the new markets in it, and goes before their snapshots.
        initial = flag(params, "send_initial_snapshot")
        before = subscription.tickers
        if before is not None:
            listed = dict.fromkeys([*before, *tickers])
            self._acknowledge(command_id, subscription, listed)
        else:
            self._acknowledge(command_id, subscription)
        self._add(subscription, tickers, initial)

    def _remove(self, subscription: Subscription, tickers: list[str]) -> None:
        known = subscription.tickers
        if known is None:
            raise CommandFailed(11, subscription.sid)
        gone = [ticker for ticker in dict.fromkeys(tickers) if ticker in known]
        for ticker in gone:
            del known[ticker]
        if gone:
            self.feed.leave(subscription, gone)
            self.note("removed", sid=subscription.sid, tickers=gone)

    def _acknowledge(
        self,
        command_id: int | None,
        subscription: Subscription,
        listed: dict[str, None] | None = None,
    ) -> None:
        tickers = subscription.tickers if listed is None else listed
        body: dict[str, list[str]] = {}
        if tickers is not None and not subscription.skip_ticker_ack:
            body["market_tickers"] = list(tickers)
            if subscription.channel == TICKERS:
                ids = (self.feed.market_id_of(ticker) for ticker in tickers)
                body["market_ids"] = [market_id for market_id in ids if market_id]
        subscription.answer("ok", command_id, body)

    def _unsubscribe(self, command_id: int | None, params: dict[str, Any]) -> None:
        sids = integers(params, "sids")
        if not sids:
            raise CommandFailed(4)
        for sid in sids:
            subscription = self.subscriptions.get(sid)
            if subscription is None:
                self.answer("error", command_id, {"code": 7, "msg": ERRORS[7]}, None)
                continue
            self._drop(subscription, "unsubscribed")
            subscription.answer("unsubscribed", command_id)

    def _drop(self, subscription: Subscription, kind: str) -> None:
        del self.subscriptions[subscription.sid]
        self.feed.leave(subscription, None)
        self.note(kind, sid=subscription.sid, channel=subscription.channel)

    def _list(self, command_id: int | None, _params: dict[str, Any]) -> None:
        body = [
            {"channel": subscription.channel, "sid": subscription.sid}
            for subscription in self.subscriptions.values()
        ]
        self.answer("ok", command_id, body, None)

    def _the_one(self, params: dict[str, Any]) -> Subscription:
        sids = integers(params, "sids")
        sid = params.get("sid")
        if sid is not None:
            if type(sid) is not int:
                raise CommandFailed(1)
            sids = [*sids, sid]
        if len(sids) != 1:
            raise CommandFailed(12)
        subscription = self.subscriptions.get(sids[0])
        if subscription is None:
            raise CommandFailed(7)
        return subscription

    def _named_markets(self, params: dict[str, Any]) -> list[str]:
        """Return the tickers named directly or by market id (ids that are not known name nothing)."""
        ids = strings(params, "market_ids")
        single = params.get("market_id")
        if isinstance(single, str):
            ids = [*ids, single]
        found = [self.feed.ticker_of(market_id) for market_id in ids]
        return [*tickers_of(params), *(ticker for ticker in found if ticker is not None)]


_COMMANDS: dict[str, Callable[[Session, int | None, dict[str, Any]], None]] = {
    "subscribe": Session._subscribe,
    "update_subscription": Session._update,
    "unsubscribe": Session._unsubscribe,
    "list_subscriptions": Session._list,
}
