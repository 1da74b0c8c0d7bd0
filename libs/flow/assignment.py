"""Assignment: one look at a zone's shards and slots, and the changes that bring them one step further.

Moves are make-before-break. A slot's row goes assigned -> live -> releasing -> deleted; the planner inserts `assigned`
for the new owner, sets the old one `releasing` once the new is live, and withdraws a new owner that is not live in
time. The new owner alone sets `live`, the old one deletes its own row. Both planners (operator and stand-in) run this
same pure function; times are arguments.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from libs.flow.placement import Place, place
from libs.marketdata.units import SECOND

LIVE_WITHIN = 60 * SECOND
"""A new owner that is not live after this long is withdrawn; the old one stays."""
FROZEN_FOR = 120 * SECOND
"""How long the slots of shards that vanished together wait for them to come back."""
MOVES_MAX = 25
"""Moves in flight at once in a zone, whatever the account would allow."""


class State(enum.StrEnum):
    """States of a slot's row."""

    ASSIGNED = "assigned"
    LIVE = "live"
    RELEASING = "releasing"


class Pair(NamedTuple):
    """A row's key."""

    slot: str
    shard: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A connector pod as the control tables show it.

    is_alive: its lease has not expired, by the database's clock. epoch: raised at every start of
    any shard, so that the largest started last. expired_for: how long the planner has seen it
    expired, microseconds. extra_connections: what it has or may open beyond one per row.
    """

    name: str
    is_alive: bool
    draining: bool = False
    template_hash: str = ""
    capacity: int = 1
    epoch: int = 0
    expired_for: int = 0
    extra_connections: int = 0

    @property
    def is_member(self) -> bool:
        """True when it may be given slots."""
        return self.is_alive and not self.draining

    @property
    def has_vanished(self) -> bool:
        """True when it went without saying so."""
        return not self.is_alive and not self.draining


@dataclass(frozen=True, slots=True)
class Row:
    """A row of slot_assignments. assigned_for: how long the planner has seen it `assigned`, microseconds."""

    slot: str
    shard: str
    state: State
    epoch: int = 0
    assigned_for: int = 0

    @property
    def pair(self) -> Pair:
        return Pair(self.slot, self.shard)


@dataclass(slots=True)
class Plan:
    """Changes to write in one fenced transaction: inserts as `assigned`, others only in the state named."""

    insert: list[Pair] = field(default_factory=list)
    release: list[Pair] = field(default_factory=list)
    """live -> releasing"""
    restore: list[Pair] = field(default_factory=list)
    """releasing -> live: the new owner went before the hand-over was complete"""
    withdraw: list[Pair] = field(default_factory=list)
    """assigned -> deleted"""
    bury: list[Pair] = field(default_factory=list)
    """rows of dead shards -> deleted, in any state"""
    is_frozen: bool = False

    @property
    def is_empty(self) -> bool:
        return not any(self.counts().values())

    def counts(self) -> dict[str, int]:
        """How many changes of each kind, for log lines and metrics."""
        kinds = ("insert", "release", "restore", "withdraw", "bury")
        return {kind: len(getattr(self, kind)) for kind in kinds}


def is_frozen(shards: Iterable[Shard], wanted: int | None = None) -> bool:
    """True when more than half of the shards vanished together, less than 120 s ago.

    wanted: how many there are to be; what is above that has not vanished, it was given up. None: nobody says.
    """
    shards = list(shards)
    members = sum(shard.is_member for shard in shards)
    gone = sum(shard.has_vanished and shard.expired_for < FROZEN_FOR for shard in shards)
    if wanted is not None:
        gone = min(gone, max(0, wanted - members))
    return gone > members


def moves_max(connections_max: int, connections: int) -> int:
    """Most slots with two connections at once: what so many, one per slot and all extra ones, leave of the account's."""
    return max(0, min(MOVES_MAX, connections_max - connections))


def plan(
    slots: Iterable[str],
    shards: Iterable[Shard],
    rows: Iterable[Row],
    *,
    moves_max: int = MOVES_MAX,
    weights: Mapping[str, float] | None = None,
    pins: Mapping[str, str] | None = None,
    wanted: int | None = None,
    newest: str | None = None,
) -> Plan:
    """Return the next changes; called again after they are written it goes on, until nothing is left.

    Args:
        slots: every slot of the zone, `kind/number`.
        shards: every shard the zone knows, alive or not.
        rows: every row of slot_assignments.
        moves_max: most slots with two connections at once (connections_max - slots - extra connections, and 25).
        weights: observed load per slot; pins: slot -> shard, given by hand.
        wanted: how many shards there are to be, where somebody says so.
        newest: the template that slots go to while there are several; None: that of the shard that started last.
    """
    planner = _Planner(slots, shards, rows, moves_max, weights or {}, pins or {}, newest)
    planner.plan.is_frozen = is_frozen(planner.shards.values(), wanted)
    return planner.run()


class _Planner:
    def __init__(
        self,
        slots: Iterable[str],
        shards: Iterable[Shard],
        rows: Iterable[Row],
        moves_max: int,
        weights: Mapping[str, float],
        pins: Mapping[str, str],
        newest: str | None,
    ) -> None:
        self.slots = sorted(set(slots))
        self.shards = {shard.name: shard for shard in shards}
        self.moves_max = moves_max
        self.weights, self.pins, self.newest = weights, pins, newest
        self.rows: dict[str, list[Row]] = {slot: [] for slot in self.slots}
        self.strangers: list[Row] = []
        for row in sorted(rows, key=lambda r: r.pair):
            self.rows.get(row.slot, self.strangers).append(row)
        self.plan = Plan()

    def run(self) -> Plan:
        targets = self._targets()
        self._strangers()
        moving = sum(self._is_moving(slot) for slot in self.slots)
        for slot in self.slots:
            target = targets.get(slot)
            self._settle(slot, target)
            if target is not None and self._starts(slot, target, moving):
                moving += self._living(slot, State.LIVE) != []
                self.plan.insert.append(Pair(slot, target))
        return self.plan

    def _alive(self, row: Row) -> bool:
        shard = self.shards.get(row.shard)
        return shard is not None and shard.is_alive

    def _member(self, name: str) -> bool:
        shard = self.shards.get(name)
        return shard is not None and shard.is_member

    def _living(self, slot: str, *states: State) -> list[Row]:
        return [row for row in self.rows[slot] if self._alive(row) and row.state in states]

    def _is_moving(self, slot: str) -> bool:
        """True when two connections may be open for the slot."""
        return len(self._living(slot, *State)) > 1

    def _late(self, row: Row) -> bool:
        """True when a new owner had its time and another one still serves the slot."""
        is_over = row.state is State.ASSIGNED and row.assigned_for >= LIVE_WITHIN
        return is_over and bool(self._living(row.slot, State.LIVE, State.RELEASING))

    def _targets(self) -> dict[str, str]:
        """Where every slot should be; what is on its way stays on its way."""
        members = [shard for shard in self.shards.values() if shard.is_member]
        newest = self._newest_template(members)
        mixed = len({shard.template_hash for shard in self.shards.values() if shard.is_alive}) > 1
        places = [Place(s.name, s.capacity, s.template_hash == newest) for s in members]
        current = {slot: name for slot in self.slots if (name := self._current(slot)) is not None}
        return place(
            self.slots,
            places,
            current,
            weights=self.weights,
            pins=self.pins,
            settled=frozenset(current) if mixed else frozenset(),
        )

    def _newest_template(self, members: Sequence[Shard]) -> str | None:
        """Of what slots go to first. A container of the old template that restarts starts last, too: who knows better says so."""
        if self.newest is not None and any(s.template_hash == self.newest for s in members):
            return self.newest
        last = max(members, key=lambda s: (s.epoch, s.name), default=None)
        return None if last is None else last.template_hash

    def _current(self, slot: str) -> str | None:
        """The member that has the slot, or is to have it."""
        on_the_way = [r for r in self._living(slot, State.ASSIGNED) if not self._late(r)]
        candidates = on_the_way or self._living(slot, State.LIVE)
        members = [r for r in candidates if self._member(r.shard)]
        return max(members, key=lambda r: (r.epoch, r.shard)).shard if members else None

    def _strangers(self) -> None:
        """Slots that the configuration no longer has: released once all it does have are heard."""
        is_heard = all(self._living(slot, State.LIVE) for slot in self.slots)
        for row in self.strangers:
            if not self._alive(row):
                self.plan.bury.append(row.pair)
            elif row.state is State.ASSIGNED:
                self.plan.withdraw.append(row.pair)
            elif row.state is State.LIVE and is_heard:
                self.plan.release.append(row.pair)

    def _settle(self, slot: str, target: str | None) -> None:
        """Bring the slot's present rows on: release, restore, withdraw, bury."""
        live = self._living(slot, State.LIVE)
        keeper = self._keeper(live, target)
        if keeper is None:
            leaving = self._living(slot, State.RELEASING)
            self.plan.restore += [row.pair for row in leaving[:1]]
        self.plan.release += [row.pair for row in live if row is not keeper]
        for row in self._living(slot, State.ASSIGNED):
            if self._late(row) or not self._member(row.shard):
                self.plan.withdraw.append(row.pair)
        for row in self.rows[slot]:
            if not self._alive(row) and (keeper is not None or row.state is State.ASSIGNED):
                self.plan.bury.append(row.pair)

    def _keeper(self, live: Sequence[Row], target: str | None) -> Row | None:
        """Of several live owners the one that stays: on the target, else a member, else the newest."""
        return max(
            live,
            key=lambda r: (r.shard == target, self._member(r.shard), r.epoch, r.shard),
            default=None,
        )

    def _starts(self, slot: str, target: str, moving: int) -> bool:
        """True when the target is to be told now to take the slot."""
        rows = self.rows[slot]
        waits = [r for r in self._living(slot, State.ASSIGNED) if self._member(r.shard)]
        if any(not self._late(r) for r in waits) or any(r.shard == target for r in rows):
            return False
        if self._living(slot, State.LIVE, State.RELEASING):
            return moving < self.moves_max
        return not (rows and self._held(rows))

    def _held(self, rows: Sequence[Row]) -> bool:
        """True while the slot waits for a shard that vanished together with most of the others."""
        if not self.plan.is_frozen:
            return False
        return any(
            (shard := self.shards.get(row.shard)) is not None
            and shard.has_vanished
            and row.state is not State.ASSIGNED
            for row in rows
        )
