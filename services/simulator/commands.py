"""Commands of a client: their parts read, their faults numbered as the exchange numbers them."""

import json
from typing import Any

COMMANDS = ("subscribe", "update_subscription", "unsubscribe", "list_subscriptions")

ERRORS = {
    1: "Unable to process message",
    2: "Params required",
    3: "Channels required",
    4: "Subscription IDs required",
    5: "Unknown command",
    7: "Unknown subscription ID",
    8: "Unknown channel name",
    10: "Channel error",
    11: "Invalid parameter",
    12: "Exactly one subscription ID is required",
    13: "Unsupported action",
    14: "Market Ticker required",
    15: "Action required",
    25: "Subscription buffer overflow",
    26: "Subscription market limit exceeded",
    27: "Too many requests",
}


class CommandFailed(Exception):
    """A command cannot be done; `code` says why, `sid` is set when it is about one."""

    def __init__(self, code: int, sid: int | None = None) -> None:
        super().__init__(code, ERRORS[code])
        self.code = code
        self.sid = sid


def parse_command(data: str | bytes) -> tuple[int | None, str, dict[str, Any]]:
    """Return id (None when absent or 0), command name and params of a client's frame."""
    try:
        command = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CommandFailed(1) from error
    if not isinstance(command, dict):
        raise CommandFailed(1)
    command_id = command.get("id")
    name = command.get("cmd", "")
    if not isinstance(name, str) or not (command_id is None or type(command_id) is int):
        raise CommandFailed(1)
    if name not in COMMANDS:
        raise CommandFailed(5)
    params = command.get("params")
    if name == "list_subscriptions":
        params = params or {}
    if params is None:
        raise CommandFailed(2)
    if not isinstance(params, dict):
        raise CommandFailed(1)
    return command_id or None, name, params


def id_of(data: str | bytes) -> int | None:
    """Find the id of a command that could not be parsed further, so that its error names it."""
    try:
        command = json.loads(data)
    except (ValueError, RecursionError):
        return None
    found = command.get("id") if isinstance(command, dict) else None
    return found or None if type(found) is int else None


def strings(params: dict[str, Any], name: str) -> list[str]:
    """Return a list of texts, empty when absent."""
    value = params.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CommandFailed(1)
    return value


def integers(params: dict[str, Any], name: str) -> list[int]:
    """Return a list of integers, empty when absent."""
    value = params.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise CommandFailed(1)
    return value


def tickers_of(params: dict[str, Any]) -> list[str]:
    """Return market_ticker or market_tickers; both at once is not a valid parameter."""
    tickers = strings(params, "market_tickers")
    single = params.get("market_ticker")
    if single is None:
        return tickers
    if not isinstance(single, str):
        raise CommandFailed(1)
    if tickers or not single:
        raise CommandFailed(11)
    return [single]


def flag(params: dict[str, Any], name: str) -> bool:
    """Return a switch, off when absent."""
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise CommandFailed(1)
    return value
