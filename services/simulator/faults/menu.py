"""The fault menu: one frozen dataclass per kind, its fields checked, its docstring what a person reads. Pure.

Times are seconds. `at_s` counts from the epoch (absent: at once), `for_s` says how long (0: once). A fault on frames with
`for_s` 0 hits the next `count_max` frames, or the next one. `on` says whom it hits; what is absent there is no condition.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from libs.runtime.convert import Between
from services.simulator.rest_trouble import BODIES
from services.simulator.subscription import TICKERS

YEAR_S = 31_536_000
BY_KEY = frozenset({"zone", "key"})
BY_LINE = BY_KEY | {"connection"}
BY_CHANNEL = BY_LINE | {"channel"}
COMMANDS_MAX = 10_000
"""Commands that one fault may answer with an error; they are kept one by one."""
Duration = Literal["once", "lasting", "either"]


@dataclass(frozen=True, slots=True, kw_only=True)
class On:
    """Whom a fault hits."""

    zone: str = ""
    """Label of the key's zone (simulator.keys)."""
    key: str = ""
    """Key id."""
    connection: Annotated[int, Between(0, 1 << 53)] = 0
    """Number of a connection, from 1."""
    channel: str = ""
    """Channel of the frames or subscriptions."""

    def takes_key(self, key_id: str, zone: str) -> bool:
        return (not self.key or self.key == key_id) and (not self.zone or self.zone == zone)

    def takes_line(self, number: int, key_id: str, zone: str) -> bool:
        is_it = not self.connection or self.connection == number
        return is_it and self.takes_key(key_id, zone)

    def takes_channel(self, channel: str) -> bool:
        return not self.channel or self.channel == channel


EVERYONE = On()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What all faults have in common."""

    kind: ClassVar[str]
    duration: ClassVar[Duration] = "once"
    aims: ClassVar[frozenset[str]] = BY_LINE
    """Fields of `on` that mean something."""
    counts: ClassVar[frozenset[str]] = frozenset()
    """Which of share and count_max mean something."""

    at_s: Annotated[float, Between(0, YEAR_S)] | None = None
    for_s: Annotated[float, Between(0, YEAR_S)] = 0.0
    on: On = EVERYONE
    share: Annotated[float, Between(0, 1)] = 1.0
    count_max: Annotated[int, Between(0, 1 << 53)] = 0

    def check(self) -> Iterator[str]:
        """Yield what is wrong with values that are each possible; every line begins with the field."""
        return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFault(Fault):
    """A fault on single frames on their way out; their numbers and sending times were given before."""

    duration: ClassVar[Duration] = "either"
    aims: ClassVar[frozenset[str]] = BY_CHANNEL
    counts: ClassVar[frozenset[str]] = frozenset({"share", "count_max"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(FrameFault):
    """Frames are lost: their seq is taken, so the next one shows a gap (on ticker nothing shows)."""

    kind: ClassVar[str] = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(FrameFault):
    """Frames come twice, one after the other."""

    kind: ClassVar[str] = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay(FrameFault):
    """Frames come late by delay_ms; those behind them wait, so that order is kept."""

    kind: ClassVar[str] = "delay"
    delay_ms: Annotated[int, Between(1, 3_600_000)] = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder(FrameFault):
    """Frames come after the next `places` frames of their channel, or after a second."""

    kind: ClassVar[str] = "reorder"
    places: Annotated[int, Between(1, 10_000)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate(FrameFault):
    """Frames are cut off at a place chosen by chance: whole websocket frames that are no JSON."""

    kind: ClassVar[str] = "truncate"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameField(FrameFault):
    """A field of `msg` (or of the envelope) has another name, as after a release of the exchange."""

    kind: ClassVar[str] = "rename_field"
    field: str
    to: str

    def check(self) -> Iterator[str]:
        if not self.field:
            yield "field: name the field that gets another name, such as price_dollars"
        if not self.to or self.to == self.field:
            yield "to: say the new name, another than the old one"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewField(FrameFault):
    """`msg` has one field more than yesterday."""

    kind: ClassVar[str] = "new_field"
    field: str = "new_tomorrow"
    value: str = "1"

    def check(self) -> Iterator[str]:
        if not self.field:
            yield "field: name the new field"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall(Fault):
    """Silence on an open socket. Afterwards what waited comes at once, or (lost) never: then a gap shows in seq."""

    kind: ClassVar[str] = "stall"
    duration: ClassVar[Duration] = "lasting"
    aims: ClassVar[frozenset[str]] = BY_CHANNEL
    pings: bool = False
    """Whether pings go on. A stall of one channel does not touch them."""
    lost: bool = False
    """Whether the frames of that time are thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip(Fault):
    """Frames come later and later: their age grows by `growth` seconds every second, pings go on."""

    kind: ClassVar[str] = "drip"
    duration: ClassVar[Duration] = "lasting"
    aims: ClassVar[frozenset[str]] = BY_CHANNEL
    growth: Annotated[float, Between(0.001, 100)] = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SeqGap(Fault):
    """Subscriptions skip `by` numbers; nothing is lost."""

    kind: ClassVar[str] = "seq_gap"
    aims: ClassVar[frozenset[str]] = BY_CHANNEL
    by: Annotated[int, Between(1, 1_000_000)] = 1

    def check(self) -> Iterator[str]:
        if self.on.channel == TICKERS:
            yield "on.channel: choose another, ticker frames have no numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownType(Fault):
    """Subscriptions send `count` frames of a type nobody knows; each takes a number where frames have one."""

    kind: ClassVar[str] = "unknown_type"
    aims: ClassVar[frozenset[str]] = BY_CHANNEL
    name: str = "orderbook_weather"
    count: Annotated[int, Between(1, 10_000)] = 1

    def check(self) -> Iterator[str]:
        if not self.name.isidentifier():
            yield "name: use letters, digits and underscores, as types do"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStorm(Fault):
    """Order-book subscriptions send snapshots of all their markets, unasked, `rounds` times."""

    kind: ClassVar[str] = "snapshot_storm"
    rounds: Annotated[int, Between(1, 100)] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Fault):
    """Error frames: 10 and 25 end the subscriptions they name; 26 and 27 answer the next `count_max` commands (or one)."""

    kind: ClassVar[str] = "error"
    aims: ClassVar[frozenset[str]] = BY_CHANNEL
    counts: ClassVar[frozenset[str]] = frozenset({"count_max"})
    code: int

    def check(self) -> Iterator[str]:
        if self.code not in (10, 25, 26, 27):
            yield "code: choose 10 or 25 (ends subscriptions), 26 or 27 (answers the next command)"
        elif self.code > 25 and self.on.channel:
            yield "on.channel: leave it out, a command is answered before its channel is looked at"
        elif self.code <= 25 and self.count_max:
            yield "count_max: leave it out, a subscription ends once"
        elif self.count_max > COMMANDS_MAX:
            yield f"count_max: at most {COMMANDS_MAX} commands"


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfOpen(Fault):
    """The socket stays open and is dead: nothing is sent, commands and closes are not heard, until the client goes."""

    kind: ClassVar[str] = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Close(Fault):
    """Connections are closed with a close frame."""

    kind: ClassVar[str] = "close"
    code: int = 1001

    def check(self) -> Iterator[str]:
        if self.code not in (1000, 1001, 1008, 1009, 1011):
            yield "code: choose 1000, 1001, 1008, 1009 or 1011; for 1006 take the fault reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(Fault):
    """Connections break without a close frame (TCP RST; the client sees 1006)."""

    kind: ClassVar[str] = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse(Fault):
    """New connections get an HTTP error instead of a websocket."""

    kind: ClassVar[str] = "refuse"
    duration: ClassVar[Duration] = "lasting"
    aims: ClassVar[frozenset[str]] = BY_KEY
    status: int = 502
    body: Literal["html", "empty", "json"] = "html"

    def check(self) -> Iterator[str]:
        if self.status not in (429, 500, 502, 503, 504):
            yield "status: choose 429, 500, 502, 503 or 504"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthExpiry(Fault):
    """Keys are no longer known: their connections are closed (1008: our inference), new ones and signed REST get 401."""

    kind: ClassVar[str] = "auth_expiry"
    duration: ClassVar[Duration] = "lasting"
    aims: ClassVar[frozenset[str]] = BY_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest(Fault):
    """A share of the REST requests fails."""

    kind: ClassVar[str] = "rest"
    duration: ClassVar[Duration] = "lasting"
    aims: ClassVar[frozenset[str]] = BY_KEY
    counts: ClassVar[frozenset[str]] = frozenset({"share"})
    status: Annotated[int, Between(400, 599)] = 503
    body: str = ""
    """html, empty, json, nested, flat, msg, plain, status; empty: in turn what is known of the status."""
    path: str = ""
    """Beginning of the paths it hits, such as /markets/orderbooks."""

    def check(self) -> Iterator[str]:
        if self.body not in BODIES:
            yield f"body: choose one of {', '.join(BODIES[1:])}, or leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance(Fault):
    """The exchange pauses: connections are closed 1001 and refused 503, the status endpoint says so."""

    kind: ClassVar[str] = "maintenance"
    duration: ClassVar[Duration] = "lasting"
    aims: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep(Fault):
    """A clock jumps by by_ms: the exchange's (ts_ms of later changes; forth or back), or ours (the clients' own)."""

    kind: ClassVar[str] = "clock_step"
    aims: ClassVar[frozenset[str]] = BY_KEY
    by_ms: Annotated[int, Between(-86_400_000, 86_400_000)]
    whose: Literal["exchange", "ours"] = "exchange"

    def check(self) -> Iterator[str]:
        if not self.by_ms:
            yield "by_ms: say how far, in milliseconds, forth or (negative) back"
        if self.whose == "exchange" and self.on != EVERYONE:
            yield "on: leave it out, the exchange has one clock for everyone"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateMarkets(Fault):
    """Many markets are listed in one moment."""

    kind: ClassVar[str] = "create_markets"
    aims: ClassVar[frozenset[str]] = frozenset()
    count: Annotated[int, Between(1, 1_000_000)] = 1_000


KINDS: dict[str, type[Fault]] = {
    cls.kind: cls
    for cls in (
        Drop, Duplicate, Delay, Reorder, Truncate, SeqGap, Stall, Drip, HalfOpen, Close, Reset, Refuse, AuthExpiry,
        Error, SnapshotStorm, RenameField, NewField, UnknownType, ClockStep, CreateMarkets, Rest, Maintenance,
    )
}  # fmt: skip
