"""Commands that wait for their answer: subscriptions of whole channels, and what becomes of commands that were refused.

A refusal costs as little as may be: the command is sent again later, then in smaller parts, then the one market that is
meant is given up, and that is written down. Only when nothing smaller is left to ask for is the slot itself refused.
"""

from libs.exchange import commands, wire
from libs.exchange.errors import SubscriptionRejected
from libs.flow.placement import CHANNELS
from libs.marketdata.listening import ORDERBOOK_CHANNEL
from libs.marketdata.rows import gap
from libs.marketdata.units import SECOND
from services.connector.errors import Unanswered
from services.connector.judge import Judge
from services.connector.markets import Pending
from services.connector.sids import Sid

TOO_MANY = 27
LATER = frozenset({17, 18, TOO_MANY})
"""Errors of a command that may be sent again later: each one in a row after twice as long, from RETRY_AFTER on."""
MARKET_LIMIT = 26
RETRY_AFTER = 1 * SECOND
RETRY_AFTER_MAX = 60 * SECOND
NOT_FOUND = 16
REFUSALS_MAX = 3
"""Refusals of a command that cannot be made smaller, in a row: the exchange changed, or our configuration is wrong."""
FIRSTS_MAX = 20
"""The same for single markets while there is no subscription yet: so many bad ones do not stand side by side in a list."""


class Asking:
    """What one connection asked for and was not answered yet; the command of its markets waits in markets.py."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._markets = judge.markets
        self._asked_at: int | None = None
        self._asked_id: int | None = None
        self._asked_channels: frozenset[str] = frozenset()
        self._hold_until = 0
        self._retry_after = RETRY_AFTER
        self._refusals = 0
        self._firsts = 0

    def channels(self) -> list[bytes]:
        """Return the command that subscribes the whole channels that are missing; none while one waits, or is to wait."""
        now = self._judge.moment
        if self._asked_at is not None or now < self._hold_until:
            return []
        held = {sid.channel for sid in self._judge.sids.values()}
        channels = [name for name in CHANNELS[self._judge.kind] if name not in held]
        if not channels:
            return []
        self._asked_at, self._asked_id = now, self._judge.ids.next()
        self._asked_channels = frozenset(channels)
        return [commands.subscribe(self._asked_id, channels)]

    def check(self) -> None:
        """Look whether an answer is overdue.

        Raises:
            Unanswered: it is; close the connection.
        """
        pending = self._markets.pending
        asked_at = pending.asked_at if pending else self._asked_at
        if asked_at is not None and self._judge.moment - asked_at > self._judge.settings.answer:
            raise Unanswered(f"no answer to {'subscribe' if pending is None else pending.kind}")

    def waits_for(self, command_id: int | None) -> bool:
        """True when this is the command that waits for its answer."""
        pending = self._markets.pending
        asked = self._asked_id if self._asked_at is not None else None
        waiting = pending.command_id if pending else asked
        return command_id is not None and command_id == waiting

    def forget(self) -> None:
        """Wait for no channel's answer any more: a subscription ended, what is missing is asked for anew."""
        self._asked_at = None

    # --- answers ---

    def subscribed(self, sid: Sid, command_id: int | None) -> None:
        """Take the subscription that a command began."""
        self._succeeded()
        if sid.is_book:
            self._markets.answered(command_id, self._judge.moment)
        else:
            self._asked_channels -= {sid.channel}
            if not self._asked_channels:
                self._asked_at = None

    def done(self, sid: Sid | None, command_id: int | None) -> None:
        """Take the success of a command on the sid that the answer names, if it names one."""
        done = self._markets.answered(command_id, self._judge.moment)
        if done is not None:
            self._succeeded()
        if done is not None and done.kind == "delete":
            _give_back(sid or self._judge.book_sid, done)

    def _succeeded(self) -> None:
        self._refusals = 0
        self._retry_after = RETRY_AFTER

    def failed(self, sid: Sid | None, message: wire.Error, now: int) -> None:
        """Take the failure of a command: send it again later, in smaller parts, or give its markets up.

        Raises:
            SubscriptionRejected: nothing smaller is left to ask for.
        """
        code, text = message.msg.code, message.msg.msg
        self._judge.noted["refused"] += 1
        new: list[str] = []
        if code in LATER:
            failed = self._put_off(message.id, code)
        elif code == MARKET_LIMIT:
            failed, new = self._over_limit(message.id)
        else:
            failed, new = self._declined(message)
        if new:
            self.refused(sid, new, text, now)
        if failed is not None:
            self._take_back(failed, now)
        elif self._asked_at is not None:
            self._asked_at = None
            self._refusals += code not in LATER
        if self._refusals >= REFUSALS_MAX:
            raise SubscriptionRejected(code, text)

    def _put_off(self, command_id: int | None, code: int) -> Pending | None:
        """Let the command that failed wait, each time in a row twice as long; too many commands let all of them wait."""
        retry_at = self._judge.moment + self._retry_after
        failed = self._markets.failed(command_id, retry_at=retry_at)
        if failed is not None or code == TOO_MANY or self._asked_at is not None:
            self._hold_until = self._markets.hold_until = retry_at
            self._retry_after = min(2 * self._retry_after, RETRY_AFTER_MAX)
        return failed

    def _over_limit(self, command_id: int | None) -> tuple[Pending | None, list[str]]:
        """Take that there is no room; where not even one market found it nothing is heard, and it is asked for sooner."""
        now, markets = self._judge.moment, self._markets
        found = markets.over_limit(command_id, now, retry_at=now + RETRY_AFTER)
        if found is None:
            return None, []
        if not markets.held and len(found[0].tickers) == 1:
            markets.hold_until = now + self._retry_after
            self._retry_after = min(2 * self._retry_after, RETRY_AFTER_MAX)
        return found

    def _declined(self, message: wire.Error) -> tuple[Pending | None, list[str]]:
        """Take a refusal; while there is no subscription it may be the slot's own, not one market's."""
        code, text, now = message.msg.code, message.msg.msg, self._judge.moment
        found = self._markets.decline(
            message.id, message.msg.market_ticker, now, retry_at=now + RETRY_AFTER
        )
        if found is None:
            return None, []
        declined, new = found
        if declined.kind == "delete":
            self._refusals += 1
        elif declined.kind == "subscribe" and new and code != NOT_FOUND:
            self._firsts += 1
            if self._firsts >= FIRSTS_MAX or not self._markets.is_untried:
                raise SubscriptionRejected(code, text)
        return declined, new

    def _take_back(self, failed: Pending, now: int) -> None:
        """What a failed command may have done in part proves nothing."""
        book = self._judge.book_sid
        if failed.kind == "delete":
            _give_back(book, failed)
            self._markets.refresh(failed.tickers)
        elif book is not None:
            for ticker in failed.tickers:
                book.disclaim(ticker, "refused", now)

    def refused(self, sid: Sid | None, tickers: list[str], text: str, now: int) -> None:
        """Write down that markets are not captured because the exchange does not take them."""
        judge = self._judge
        what = repr(tickers[0]) if len(tickers) == 1 else f"{len(tickers)} markets"
        row = gap(
            now, ORDERBOOK_CHANNEL, "not_subscribed", slot=judge.slot,
            detail=f"{what}: {text}", ticker=tickers[0] if len(tickers) == 1 else None,
            from_ts=now, received_from=now, connection=judge.connection, sid=sid.sid if sid else None,
        )  # fmt: skip
        judge.outlets.gap(row, now)


def _give_back(sid: Sid | None, done: Pending) -> None:
    """Forget the streams of a delete: it is done, or failed and the next snapshot begins them anew."""
    for ticker in done.tickers if sid is not None else ():
        assert sid is not None
        sid.forget_stream(ticker)
