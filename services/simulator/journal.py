"""Journals: JSON lines in buffered files, complete on disk after `flush`.

Prices are hundred-thousandths of a dollar in the bid's own leg, sizes hundredths of a contract, times microseconds since
1970; `at` is when it happened (market) or was sent (session), `exchange_ts` the whole millisecond the frame says.

market.jsonl, what was published, whoever listened:
    created    at ticker event_ticker series_ticker initial open_at close_at yes no   (ladders: [[price, size], ...])
               (initial: it was there at the epoch. The first 100,000 of those stand at the beginning, any other one
               right before its first change; what never changed of them has no line.)
    delta      at exchange_ts ticker side price size_delta position                   (position: from 1, per market)
    trade      at exchange_ts ticker trade_id yes_price no_price size taker_side is_block
    ticker     at exchange_ts ticker + the ten fields of a ticker
    lifecycle  at ticker channel message_type event_type open_at close_at determined_at settled_at settlement_value
               result body                                                            (body: the message as sent)
    closed     at ticker
    clock_stepped  at by      (the exchange's clock jumped: `at` and exchange_ts of later deltas, trades and tickers' are
               what that clock says; `at` of all other kinds stays true)
    halted     at until       (no orders come before `until`)
    A replay writes delta, trade and ticker (without `at` for ticker), snapshot (ticker yes no) and unreadable (frame).
session.jsonl, what was sent to whom, at the time of queuing; every line has `at`, those of a connection `connection`:
    opened (id key_id remote) · subscribed (sid channel use_yes_price everything) · added, removed (sid tickers) ·
    snapshot (sid seq ticker yes no position sent_at) · unsubscribed, overflow, channel_error (sid channel; the last two
    end with error 25 and 10) · closed (overflows) · refused (key_id status connections: one connection too many) ·
    throttled (key_id: a read beyond the account's budget) ·
    end (mode seed epoch end_ts final_ts published lag_us_max) · final_book (ticker yes no exchange_ts position)
    fault: what was made to go wrong; `fault` is the kind, `number` the fault's, from 1, `phase` one of
        begin   entry (as a script has it, with at_s) until (None: it happens once, or until its count is used up)
        hit     connection and what was hit: sid seq channel type ticker of a frame that was dropped, doubled, maimed, set
                back or thrown away in a stall (bytes: what is left of a truncated one); sid channel seq seq_to of numbers
                skipped or frames made up; code of an error; key_id status (and path) of a connection or request refused;
                by_ms whose exchange_at of a clock step, count exchange_at of markets created. A frame that is only late has no line.
        end     hits, connections (hits by connection), early (ended by hand before its time)
"""

import json
from pathlib import Path
from typing import Protocol

_BUFFER_BYTES = 1 << 20


class Sink(Protocol):
    """Where the lines of one journal go."""

    def line(self, text: str) -> None:
        """Take a line that is already JSON and ends with a newline."""

    def record(self, fields: dict[str, object]) -> None:
        """Take a line as its fields."""


class Journal:
    """One append-only file of JSON lines; it begins empty."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w", buffering=_BUFFER_BYTES, encoding="utf-8")

    def line(self, text: str) -> None:
        """Append a line that is already JSON and ends with a newline."""
        self._file.write(text)

    def record(self, fields: dict[str, object]) -> None:
        self._file.write(_encode(fields))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class MemoryJournal:
    """A journal that is kept, for worlds in virtual time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        """Append a line that is already JSON and ends with a newline."""
        self.lines.append(text)

    def record(self, fields: dict[str, object]) -> None:
        self.lines.append(_encode(fields))

    def bytes(self) -> bytes:
        """Return what a file would hold."""
        return "".join(self.lines).encode()


def _encode(fields: dict[str, object]) -> str:
    return json.dumps(fields, separators=(",", ":")) + "\n"
