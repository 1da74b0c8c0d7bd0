"""One channel on one connection: its sid, its seq, its markets, and the frames it makes."""

from typing import TYPE_CHECKING, Protocol

from services.simulator.book import Ladder

if TYPE_CHECKING:
    from services.simulator.session import Session

BOOKS = "orderbook_delta"
TICKERS = "ticker"
TRADES = "trade"
LIFECYCLE = "market_lifecycle_v2"
COMBO_LIFECYCLE = "multivariate_market_lifecycle"
PRIVATE = ("fill", "market_positions", "user_orders", "order_group_updates", "communications")
CHANNELS = frozenset((BOOKS, TICKERS, TRADES, LIFECYCLE, COMBO_LIFECYCLE, *PRIVATE))
"""Channels that can be subscribed; the private ones stay silent, for nobody trades here."""
BY_MARKET = frozenset((BOOKS, TICKERS, TRADES))
"""Channels whose subscriptions may name markets."""


class Feed(Protocol):
    """Where a session's data come from: the model's exchange or a recording."""

    opens_with_snapshots: bool
    """Whether a book subscription begins with a snapshot of each of its markets."""

    def join(self, subscription: "Subscription", tickers: list[str] | None) -> None:
        """Begin to send a subscription the data of these markets (None: of all)."""

    def leave(self, subscription: "Subscription", tickers: list[str] | None) -> None:
        """Stop sending it the data of these markets (None: all, for ever)."""

    def snapshot(
        self, _subscription: "Subscription", ticker: str
    ) -> tuple[str, Ladder, Ladder, int]:
        """Return market id ("" for none), both ladders and the position in the market's deltas."""

    def send_last_ticker(self, subscription: "Subscription", ticker: str) -> None:
        """Send the last ticker of a market again, if there was one."""

    def ticker_of(self, market_id: str) -> str | None:
        """Return the ticker of a market id."""

    def market_id_of(self, ticker: str) -> str:
        """Return the id of a market, "" when it is not known."""


class Subscription:
    """One channel on one connection."""

    __slots__ = (
        "_heads", "channel", "seq", "session", "sid", "skip_ticker_ack", "tickers", "use_yes_price",
    )  # fmt: skip

    def __init__(self, session: "Session", sid: int, channel: str, everything: bool) -> None:
        self.session = session
        self.sid = sid
        self.channel = channel
        self.seq = 0
        self.tickers: dict[str, None] | None = None if everything else {}
        """Markets in the order they came; None: all there are."""
        self.use_yes_price = False
        self.skip_ticker_ack = False
        self._heads: dict[str, bytes] = {}

    def send(self, message_type: str, body: bytes, command_id: int | None = None) -> None:
        """Send a data frame that takes the next seq."""
        head = self._heads.get(message_type)
        if head is None:
            head = b'{"type":"%b","sid":%d,"seq":' % (message_type.encode(), self.sid)
            self._heads[message_type] = head
        self.seq += 1
        session = self.session
        tail = b"" if command_id is None else b',"id":%d' % command_id
        frame = b'%b%d%b%b,"msg":%b}\n' % (head, self.seq, tail, session.stamp, body)
        session.out.append(frame)
        session.written.add(self)

    def send_unnumbered(self, message_type: str, body: bytes) -> None:
        """Send a data frame without seq, as the ticker channel does."""
        session = self.session
        frame = b'{"type":"%b","sid":%d%b,"msg":%b}\n' % (
            message_type.encode(), self.sid, session.stamp, body,
        )  # fmt: skip
        session.out.append(frame)
        session.written.add(self)

    def answer(self, message_type: str, command_id: int | None, body: object = None) -> None:
        """Send an `ok`, `unsubscribed` or `error` frame about this subscription; it takes a seq."""
        self.seq += 1
        self.session.answer(message_type, command_id, body, self)
