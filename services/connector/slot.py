"""A slot: a numbered piece of work, carried by one connection, or by several parts when one cannot carry it.

Parts share the slot's markets, each its own span of them (shares.py); whoever owns the slot sees one thing that is heard
when all of it is, released when all of it is, and closed as a whole. A slot is split when the exchange, or we, close its
connection because a frame was too large (1009), and when the exchange takes no more markets on it (error 26).
"""

import asyncio
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from libs.flow.placement import CHANNELS, is_mirrored, kind_of
from libs.telemetry.logging import get_logger
from services.connector.part import Part
from services.connector.serving import first_error
from services.connector.session import Session
from services.connector.shares import WHOLE, Share
from services.connector.wiring import Dial, Wiring

__all__ = ["PARTS_MAX", "Dial", "Slot", "Wiring"]

log = get_logger(__name__)

PARTS_MAX = 8
"""Most parts of one slot: an eighth of its markets that is still too much is another kind of trouble."""


class Slot:
    """Keeps what a slot needs connected until closed. `name` is `kind/number`; `tickers` its markets."""

    def __init__(self, name: str, wiring: Wiring) -> None:
        self.name = name
        self.tickers: frozenset[str] = frozenset()
        self._wiring = wiring
        self._closing: str | None = None
        self._group: asyncio.TaskGroup | None = None
        self._parts = [Part(name, 0, WHOLE, wiring, self)]

    # --- what the owner asks ---

    @property
    def parts(self) -> tuple[Part, ...]:
        """One, or more after a split; never fewer again while the slot is served."""
        return tuple(self._parts)

    @property
    def sessions(self) -> list[Session]:
        """Those of all open connections."""
        return [part.session for part in self._parts if part.session is not None]

    @property
    def is_complete(self) -> bool:
        """True when everything that was wanted at first is subscribed and was seen, on every part."""
        return all(part.is_complete for part in self._parts)

    @property
    def wanted(self) -> int:
        """Markets it is to hear, or channels, connected or not."""
        return len(CHANNELS[kind_of(self.name)]) if is_mirrored(self.name) else len(self.tickers)

    @property
    def acked(self) -> int:
        """How many of them the exchange has acknowledged; one that two parts hear for a moment counts once."""
        if is_mirrored(self.name):
            return sum(session.acked_count for session in self.sessions)
        return self._count(session.markets.acked for session in self.sessions)

    @property
    def seen(self) -> int:
        """Of how many the first snapshot is in; a whole channel is seen with its answer."""
        if is_mirrored(self.name):
            return sum(session.seen_count for session in self.sessions)
        return self._count(session.markets.seen for session in self.sessions)

    @property
    def frames(self) -> int:
        """Over all connections there were."""
        return sum(part.frames for part in self._parts)

    @property
    def error(self) -> str:
        """Why something is not connected; empty while all is."""
        return "; ".join(part.error for part in self._parts if part.error)

    @property
    def listening_from(self) -> int | None:
        """Exchange time from which everything of the slot is heard; None while something is not.

        What a part has no room for is not heard before its heirs have taken theirs; where there is nobody to take it, it
        is not waited for.
        """
        if any(part.heirs for part in self._parts):
            return None
        starts = [part.session.listening_from if part.session else None for part in self._parts]
        known = [start for start in starts if start is not None]
        return max(known) if len(known) == len(starts) else None

    def want(self, tickers: Iterable[str]) -> None:
        """Replace the markets of an order-book slot; one that is heard stays so while new markets' books are awaited."""
        self.tickers = frozenset(tickers)
        self._share_out()

    def release(self, until: int) -> bool:
        """Take a step of the hand-over to a successor that hears everything from `until` on; True: close() it now."""
        said = [part.release(until) for part in self._parts]
        return all(said)

    def close(self, reason: str) -> None:
        """Let run() end: unsubscribe, close the sockets, end the streams with this reason; dials are given up."""
        if self._closing is None:
            self._closing = reason
        for part in self._parts:
            part.close(reason)

    async def run(self) -> None:
        """Keep every part connected until close().

        Raises:
            AuthRejected: the key is refused, and no connection of this process was ever open.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for part in self._parts:
                    group.create_task(part.run(), name=f"part-{part.name}")
        except BaseExceptionGroup as errors:
            first = first_error(errors)
            raise first from first.__cause__
        finally:
            self._group = None
            self._wiring.extra.give_back(len(self._parts) - 1)

    # --- what the parts ask ---

    def split(self, part: Part, cause: str, *, keeps: bool) -> bool:
        """Let another connection take half of a part's markets; False, and an alarm, when that cannot be.

        Args:
            keeps: the part hears its markets still, and goes on with all of them until the other one does.
        """
        halves = self._halves(part)
        if isinstance(halves, str):
            self._wiring.metrics.slot_splits_total.labels(cause=cause, outcome="refused").inc()
            log.error("slot_not_split", slot=self.name, part=part.name, cause=cause, reason=halves)
            return False
        part.share, rest = halves
        heir = Part(self.name, len(self._parts), rest, self._wiring, self)
        heir.lost = part.lost
        # Who hears all of the part's share until it does goes on with both halves.
        for giver in [other for other in self._parts if part in other.heirs]:
            giver.heirs.append(heir)
        if keeps:
            part.heirs.append(heir)
        self._parts.append(heir)
        self._share_out()
        assert self._group is not None
        self._group.create_task(heir.run(), name=f"part-{heir.name}")
        self._wiring.metrics.slot_splits_total.labels(cause=cause, outcome="split").inc()
        log.error(
            "slot_split", slot=self.name, part=part.name, cause=cause, parts=len(self._parts),
            markets=len(part.tickers), heir=heir.name, heir_markets=len(heir.tickers),
        )  # fmt: skip
        return True

    def handed_on(self, part: Part, heir: Part) -> None:
        """Note that a part's heir hears everything that the part heard for it meanwhile; it is given back."""
        part.heirs.remove(heir)
        self._share_out()

    def _halves(self, part: Part) -> tuple[Share, Share] | str:
        """Return the shares of a part and its heir, and take the heir's connection; or say why it cannot be split."""
        if self._closing is not None or self._group is None:
            return "the slot is being closed"
        if is_mirrored(self.name):
            return "the channel is one whole"
        if len(self._parts) >= PARTS_MAX:
            return f"it has {PARTS_MAX} parts already"
        halves = part.share.halves(self.tickers)
        if halves is None:
            return "it has one market"
        if not self._wiring.extra.take():
            return f"all {self._wiring.extra.limit} extra connections that the zone has for it are used"
        return halves

    def _count(self, markets: Iterable[AbstractSet[str]]) -> int:
        """Return how many of the slot's markets are in any of these sets."""
        known = list(markets)
        return len(self.tickers & (known[0] if len(known) == 1 else frozenset().union(*known)))

    def _share_out(self) -> None:
        for part in self._parts:
            heard = [part.share, *(heir.share for heir in part.heirs)]
            part.want(frozenset().union(*(share.of(self.tickers) for share in heard)))
