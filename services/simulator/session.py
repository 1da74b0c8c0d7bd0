"""What the exchange knows of one connection, and what it says there. No I/O: frames go to `out`.

Rules (all of the exchange's): a connection has at most one subscription per channel, subscribing again adds to it; seq
counts per sid over all its markets, and `ok`, `unsubscribed` and `error` frames that carry a sid take a number too;
`subscribed` carries its sid only inside `msg`; ticker frames have no seq; every frame ends with a newline.
"""

from collections import deque
from collections.abc import Callable

from services.simulator import dialogue
from services.simulator.commands import ERRORS
from services.simulator.frames import encode, snapshot_body
from services.simulator.limits import CommandRate, Limits
from services.simulator.subscription import Feed, Subscription


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
        limits: Limits | None = None,
    ) -> None:
        self.number = number
        self.feed = feed
        self.out: list[bytes] = []
        """Frames to send, in order; whoever sends them empties the list through `take_out`."""
        self.written: set[Subscription] = set()
        """Subscriptions with frames in `out`: those that die when it cannot be sent."""
        self.subscriptions: dict[int, Subscription] = {}
        self.channels: dict[int, str] = {}
        """Channel by sid, of subscriptions that have ended too."""
        self.stamp = b""
        self.now_ms = 0
        self.limits = limits or Limits()
        self.rate = CommandRate(self.limits.commands_per_s)
        self.refusals: deque[tuple[int, int]] = deque()
        """(error code, number of the fault): how the next commands are answered instead of being done."""
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
        dialogue.obey(self, data)

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
                self.fail(subscription, 25, "overflow")

    def fail(self, subscription: Subscription, code: int, kind: str) -> None:
        """End a subscription with a terminal error, noted as `kind`; the frame has its sid and takes a number."""
        self.drop(subscription, kind)
        subscription.answer("error", None, {"code": code, "msg": ERRORS[code]})

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

    def open(self, channel: str, everything: bool) -> Subscription:
        """Begin a subscription under the next sid."""
        sid = self._sids.get(channel, self._last_sid + 1)
        self._last_sid = max(sid, self._last_sid)
        subscription = Subscription(self, sid, channel, everything)
        self.subscriptions[sid] = subscription
        self.channels[sid] = channel
        return subscription

    def drop(self, subscription: Subscription, kind: str) -> None:
        """End a subscription, noted as `kind`."""
        del self.subscriptions[subscription.sid]
        self.feed.leave(subscription, None)
        self.note(kind, sid=subscription.sid, channel=subscription.channel)

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
