"""Market to slot: rendezvous hashing over the order-book slots.

Every slot scores the ticker and the highest score wins, so another number of slots moves only the markets that the
new slot wins (or the lost slot held). Pure and independent of the process: every zone places a market alike. The
answer is stored with the market; nobody computes it twice.
"""

import xxhash


def slot_number(ticker: str, slots: int) -> int:
    """Return which of `slots` (>= 1) order-book slots hears this market."""
    if slots < 1:
        raise ValueError(f"at least one order-book slot is needed, not {slots}")
    data, score = ticker.encode(), xxhash.xxh3_64_intdigest
    return max(range(slots), key=lambda slot: score(data, slot))


def slot_names(slots: int) -> list[str]:
    """Return every order-book slot of a zone that has so many."""
    return [f"orderbook/{number}" for number in range(slots)]


def slot_name(ticker: str, slots: int) -> str:
    """Return the slot as the control tables name it: `orderbook/<n>`."""
    return f"orderbook/{slot_number(ticker, slots)}"
