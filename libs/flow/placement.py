"""Placement: which shard should own which slot. Rendezvous hashing with bounded load, sticky.

Every shard ranks every slot by a hash of both names, so a change of shards moves only what must move, and any planner
in any process comes to the same answer. A slot stays where it is while its shard is there, below its bound and keeps
the mirrors of a whole-channel kind apart; otherwise it goes to the first shard of its ranking that has room.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from libs.marketdata.listening import ORDERBOOK_CHANNEL

CHANNELS = {
    "orderbook": (ORDERBOOK_CHANNEL,),
    "ticker": ("ticker",),
    "trade": ("trade",),
    "lifecycle": ("market_lifecycle_v2", "multivariate_market_lifecycle"),
}
"""Channels of a slot, by the slot's kind."""
SLACK = 1.10
"""A shard may carry a tenth more than its fair share before slots move away."""
MIRRORED_KINDS = ("ticker", "trade", "lifecycle")
"""Kinds whose slots each carry the whole channel: mirrors of each other."""


@dataclass(frozen=True, slots=True)
class Place:
    """A shard that may own slots. capacity: its share relative to the others. is_newest: runs the newest template."""

    name: str
    capacity: int = 1
    is_newest: bool = True


def kind_of(slot: str) -> str:
    """Return the kind of `kind/number`."""
    return slot.partition("/")[0]


def is_mirrored(slot: str) -> bool:
    """True for slots of a whole-channel kind."""
    return kind_of(slot) in MIRRORED_KINDS


def rank(slot: str, shard: str) -> int:
    """Return the rendezvous weight of a pair; the shard with the largest is the slot's first choice."""
    return int.from_bytes(hashlib.blake2b(f"{slot}\0{shard}".encode(), digest_size=8).digest())


def bounds(places: Iterable[Place], total: float) -> dict[str, float]:
    """Return the most that each shard may carry of a total weight."""
    places = list(places)
    capacity = sum(place.capacity for place in places)
    return {
        place.name: max(
            math.ceil(total * place.capacity / capacity), total * place.capacity / capacity * SLACK
        )
        for place in places
    }


class _Board:
    """The placement while it is being made."""

    def __init__(
        self, places: Sequence[Place], slots: Sequence[str], weights: Mapping[str, float]
    ) -> None:
        self.weights = {slot: weights.get(slot, 1.0) for slot in slots}
        self.bound = bounds(places, sum(self.weights.values()))
        self.load = dict.fromkeys(self.bound, 0.0)
        self.owner: dict[str, str] = {}
        self.newest = {place.name for place in places if place.is_newest}
        self.mirrors: dict[tuple[str, str], int] = {}
        kinds = [kind_of(slot) for slot in slots if is_mirrored(slot)]
        self.mirrors_max = {k: math.ceil(kinds.count(k) / len(places)) for k in set(kinds)}

    def allows(self, slot: str, shard: str) -> bool:
        """True when the mirrors of the slot's kind stay as far apart as there are shards."""
        kind = kind_of(slot)
        if kind not in self.mirrors_max:
            return True
        return self.mirrors.get((kind, shard), 0) < self.mirrors_max[kind]

    def has_room(self, slot: str, shard: str) -> bool:
        return self.load[shard] + self.weights[slot] <= self.bound[shard]

    def put(self, slot: str, shard: str) -> None:
        self.owner[slot] = shard
        self.load[shard] += self.weights[slot]
        key = (kind_of(slot), shard)
        self.mirrors[key] = self.mirrors.get(key, 0) + 1

    def best(self, slot: str) -> str:
        """Return the shard for a slot without one: allowed, with room, newest template, ranking; in this order."""
        return max(
            self.load,
            key=lambda shard: (
                self.allows(slot, shard),
                self.has_room(slot, shard),
                shard in self.newest,
                0.0 if self.has_room(slot, shard) else -self.load[shard] / self.bound[shard],
                rank(slot, shard),
            ),
        )


def place(
    slots: Iterable[str],
    places: Iterable[Place],
    current: Mapping[str, str],
    *,
    weights: Mapping[str, float] | None = None,
    pins: Mapping[str, str] | None = None,
    settled: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Return the owner of every slot; empty when there is no shard.

    Args:
        slots: `kind/number` each.
        places: the shards that may own slots.
        current: where slots are now; shards that are not in `places` are ignored.
        weights: observed load of a slot; 1 where not given.
        pins: slots whose shard is given by hand, obeyed while that shard is there.
        settled: slots that must not leave a shard that is there, whatever its load.
    """
    places = sorted(places, key=lambda p: p.name)
    if not places:
        return {}
    slots = sorted(set(slots), key=lambda s: (not is_mirrored(s), s))
    board = _Board(places, slots, weights or {})
    for slot, shard in sorted((pins or {}).items()):
        if slot in board.weights and shard in board.load:
            board.put(slot, shard)
    for slot in slots:
        if slot in settled and slot not in board.owner and current.get(slot) in board.load:
            board.put(slot, current[slot])
    for mirrored in (True, False):
        free = [s for s in slots if s not in board.owner and is_mirrored(s) is mirrored]
        _keep(board, free, current)
        for slot in sorted(free, key=lambda s: (-board.weights[s], s)):
            if slot not in board.owner:
                board.put(slot, board.best(slot))
    return board.owner


def _keep(board: _Board, free: Sequence[str], current: Mapping[str, str]) -> None:
    """Leave slots where they are, those a shard ranks highest first, until its bound."""
    here = [(slot, current[slot]) for slot in free if current.get(slot) in board.load]
    for slot, shard in sorted(here, key=lambda pair: (-rank(*pair), pair)):
        if board.allows(slot, shard) and board.has_room(slot, shard):
            board.put(slot, shard)
