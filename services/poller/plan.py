"""One round of snapshots, pure: which markets in which request, and when each request is due.

Requests are spread evenly over the period, so that the exchange sees a steady trickle and a busy market's snapshot
does not always fall into the same burst as everybody's. When the read budget cannot do the period the round is planned
over the time it can: rounds get longer, nothing piles up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

BOOKS_PER_REQUEST: Final = 100
URL_CHARS_MAX: Final = 7_000
"""Longest query of one request, characters; servers refuse longer lines than 8 kB."""
PARAMETER_CHARS: Final = len("tickers=&")


@dataclass(frozen=True, slots=True)
class Request:
    """The markets of one request, and its moment in seconds after the round's start."""

    tickers: tuple[str, ...]
    after_s: float


def choose(
    active: Sequence[str], others: Sequence[str], busiest: Iterable[str], markets_max: int
) -> list[str]:
    """Order a round's markets: the busiest first, then the active ones, then the others; at most markets_max, 0: all."""
    present = {*active, *others}
    first = [ticker for ticker in dict.fromkeys(busiest) if ticker in present]
    taken = set(first)
    ordered = first + [ticker for ticker in (*active, *others) if ticker not in taken]
    return ordered[:markets_max] if markets_max else ordered


def split(tickers: Sequence[str]) -> list[tuple[str, ...]]:
    """Split a round into requests of at most 100 markets whose address is not too long."""
    chunks: list[tuple[str, ...]] = []
    chunk: list[str] = []
    chars = 0
    for ticker in tickers:
        size = len(ticker) + PARAMETER_CHARS
        if chunk and (len(chunk) == BOOKS_PER_REQUEST or chars + size > URL_CHARS_MAX):
            chunks.append(tuple(chunk))
            chunk, chars = [], 0
        chunk.append(ticker)
        chars += size
    if chunk:
        chunks.append(tuple(chunk))
    return chunks


def attainable_s(requests: int, period_s: float, reads_per_s: float) -> float:
    """Return how long a round takes at least: the period, or longer when the budget cannot do it."""
    return max(period_s, requests / reads_per_s)


def plan_round(tickers: Sequence[str], period_s: float, reads_per_s: float) -> list[Request]:
    """Split a round into requests, evenly spread over the time it takes."""
    chunks = split(tickers)
    spread_s = attainable_s(len(chunks), period_s, reads_per_s)
    return [Request(c, number * spread_s / len(chunks)) for number, c in enumerate(chunks)]
