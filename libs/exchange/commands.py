"""Commands to the exchange as bytes, pure; ids come from the caller's counter, one per connection."""

import itertools
from collections.abc import Sequence

import msgspec

ORDERBOOK = "orderbook_delta"
TICKERS_PER_COMMAND_MAX = 500
"""The exchange publishes no limit of one command; some hundreds are known to work."""

_encode = msgspec.json.Encoder().encode


class CommandIds:
    """Ids 1, 2, 3 ... of one connection's commands (the exchange reads 0 as none)."""

    def __init__(self) -> None:
        self._counter = itertools.count(1)

    def next(self) -> int:
        """Return the next id."""
        return next(self._counter)


def _command(command_id: int, name: str, params: dict[str, object] | None) -> bytes:
    command: dict[str, object] = {"id": command_id, "cmd": name}
    if params is not None:
        command["params"] = params
    return _encode(command)


def subscribe(
    command_id: int,
    channels: Sequence[str],
    tickers: Sequence[str] = (),
    *,
    use_yes_price: bool = False,
    skip_ticker_ack: bool = True,
    send_initial_snapshot: bool = False,
) -> bytes:
    """Ask for channels; without tickers for every market (order books need tickers).

    use_yes_price is always sent by name for order books: the exchange will change its default.
    """
    params: dict[str, object] = {"channels": list(channels)}
    if tickers:
        params["market_tickers"] = list(tickers)
    if ORDERBOOK in channels:
        params["use_yes_price"] = use_yes_price
    if skip_ticker_ack:
        params["skip_ticker_ack"] = True
    if send_initial_snapshot:
        params["send_initial_snapshot"] = True
    return _command(command_id, "subscribe", params)


def _update(command_id: int, sid: int, action: str, tickers: Sequence[str]) -> bytes:
    if not tickers:
        raise ValueError(f"{action} needs at least one market")
    params: dict[str, object] = {"action": action, "sids": [sid], "market_tickers": list(tickers)}
    return _command(command_id, "update_subscription", params)


def add_markets(command_id: int, sid: int, tickers: Sequence[str]) -> bytes:
    """Add markets to a subscription; their snapshots follow in its sequence."""
    return _update(command_id, sid, "add_markets", tickers)


def delete_markets(command_id: int, sid: int, tickers: Sequence[str]) -> bytes:
    """Take markets out of a subscription."""
    return _update(command_id, sid, "delete_markets", tickers)


def get_snapshot(command_id: int, sid: int, tickers: Sequence[str]) -> bytes:
    """Ask for the books of markets of an order-book subscription, each at its place in the sequence."""
    return _update(command_id, sid, "get_snapshot", tickers)


def unsubscribe(command_id: int, sids: Sequence[int]) -> bytes:
    """End subscriptions."""
    return _command(command_id, "unsubscribe", {"sids": list(sids)})


def list_subscriptions(command_id: int) -> bytes:
    """Ask which subscriptions this connection holds."""
    return _command(command_id, "list_subscriptions", None)
