"""The slots this shard serves: rows that bear its name become connections, and connections answer for their rows.

Nothing here decides who owns what. A row that appears is served, one that is `releasing` is given up when the hand-over
rule is met. A slot whose row is gone is kept until another shard hears it, by the same rule: rows are also gone when
the database was emptied or restored, and then nobody else hears anything. One that the configuration has no more is
nobody else's; it is left when its last market is heard in another slot. When the control tables cannot be read everything
stays as it is.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet

from libs.flow.assignment import State
from libs.flow.placement import is_mirrored
from libs.store import control
from libs.store.pool import AnyConnection
from libs.telemetry.logging import get_logger
from services.connector.slot import Slot, Wiring
from services.connector.wiring import Budget

log = get_logger(__name__)

_NO_LIST = -1
DROP_S_MAX = 5.0
"""Seconds a connection may take to end; then it is ended where it is."""


class Holdings:
    """Slots by name, each with its running task. Of the constructor: known, every slot of the configuration.

    Attributes:
        slots: every slot that is served. states: of their rows, as last read.
        leaving: slots given up whose rows are deleted as soon as this says that everything of them is committed.
    """

    def __init__(
        self, shard: str, wiring: Wiring, group: asyncio.TaskGroup, known: Iterable[str]
    ) -> None:
        self.slots: dict[str, Slot] = {}
        self.states: dict[str, State] = {}
        self.leaving: dict[str, Callable[[], bool]] = {}
        self._shard = shard
        self._wiring = wiring
        self._group = group
        self._known = frozenset(known)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[asyncio.Task[None], str] = {}
        self._versions: dict[str, int] = {}
        self.changed = False
        self.frames_before = 0
        self._closed = False

    # --- slots ---

    def serve(self, name: str, tickers: Iterable[str] | None = None) -> Slot:
        """Begin to serve a slot; without tickers an order-book slot waits for its list."""
        slot = self.slots[name] = Slot(name, self._wiring)
        if tickers is not None:
            slot.want(tickers)
        if tickers is not None or is_mirrored(name):
            self._start(slot)
        log.info("slot_taken", slot=name)
        return slot

    def _start(self, slot: Slot) -> None:
        if slot.name not in self._tasks and not self._closed:
            self._tasks[slot.name] = self._group.create_task(
                self._run(slot), name=f"slot-{slot.name}"
            )

    async def _run(self, slot: Slot) -> None:
        try:
            await slot.run()
        except BaseException:
            if self._tasks.get(slot.name) is asyncio.current_task():
                # It was not dropped by us, so the group ends with this: nothing more may be started in it.
                self._closed = True
            raise

    async def drop(self, name: str, reason: str) -> None:
        """Close a slot and wait for its connection to end; nothing happens when somebody else has begun to."""
        slot, task = self.slots.pop(name, None), self._tasks.pop(name, None)
        if slot is None:
            return
        self.states.pop(name, None)
        self._versions.pop(name, None)
        self.changed = True
        slot.close(reason)
        if task is not None:
            await self._end(task, name)
        self.frames_before += slot.frames
        log.info("slot_left", slot=name, reason=reason)

    async def _end(self, task: asyncio.Task[None], name: str) -> None:
        self._ending[task] = name
        await asyncio.wait((task,), timeout=DROP_S_MAX)
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        del self._ending[task]

    async def close(self, reason: str) -> None:
        """Close every slot and wait until all have ended; rows that bear our name are not served any more."""
        self._closed = True
        await self._drop_all(list(self.slots), reason)
        if self._ending:
            await asyncio.wait(set(self._ending))

    # --- what the control tables say ---

    async def follow(self, conn: AnyConnection) -> None:
        """Look at the rows that bear our name once, and do what they ask.

        Raises:
            StoreUnavailable: the database is away; everything stays as it is.
        """
        rows = {row.slot: row for row in await control.owned(conn, self._shard)}
        if self.is_closed():
            return
        await self._drop_all(await self._withdrawn(conn, rows.keys()), "withdrawn")
        for name in list(self.leaving):
            if name not in rows or rows[name].state is not State.RELEASING:
                del self.leaving[name]
        for name in rows.keys() - self.slots.keys() - self.leaving.keys():
            self.serve(name)
            self.changed = True
        self.states = {name: row.state for name, row in rows.items()}
        await self._load_markets(conn)
        if self.is_closed():
            return
        told = False
        for name, row in rows.items():
            slot = self.slots.get(name)
            if slot is not None and row.state is State.ASSIGNED and slot.is_complete:
                told |= await self._tell_live(conn, slot)
        await self._release(rows.values())
        told |= await self.tell_released(conn)
        if told:
            await control.notify(conn, control.ASSIGNMENTS)

    async def _withdrawn(self, conn: AnyConnection, rows: AbstractSet[str]) -> list[str]:
        """Slots without a row that can be closed: another shard hears them, or the configuration has them no more, nor have
        they a market left.
        """
        names = self.slots.keys() - rows
        if not names:
            return []
        heard = await control.heard_by_others(conn, sorted(names), self._shard)
        served = names & self.slots.keys()
        found = {name for name in served - self._known if not self.slots[name].tickers}
        for name, start in heard.items():
            if name in self.slots and self.slots[name].release(start):
                found.add(name)
        return sorted(found)

    async def _drop_all(self, names: Iterable[str], reason: str) -> None:
        async with asyncio.TaskGroup() as closing:
            for name in names:
                closing.create_task(self.drop(name, reason), name=f"close-{name}")

    async def _load_markets(self, conn: AnyConnection) -> None:
        """Read the lists of markets that changed."""
        books = [name for name in self.slots if not is_mirrored(name)]
        versions = await control.slot_versions(conn, books) if books else {}
        for name in books:
            version = versions.get(name, _NO_LIST)
            if version == self._versions.get(name):
                continue
            # Without a list nothing says that what is heard is not wanted any more: the zone has lost it.
            has_list = version != _NO_LIST
            tickers = await control.slot_markets(conn, name) if has_list else []
            # A new market that we began to hear after our successor had told what it hears would be lost between us, as
            # we close before it hears that one. Asked after the list was read: who is told later has read this list.
            is_surpassed = has_list and bool(await control.surpassed(conn, [name], self._shard))
            slot = self.slots.get(name)
            if slot is None or is_surpassed:
                continue
            if has_list or not slot.tickers:
                slot.want(tickers)
                self.changed = True
                self._start(slot)
            self._versions[name] = version

    async def _tell_live(self, conn: AnyConnection, slot: Slot) -> bool:
        start, version = slot.listening_from, self._versions.get(slot.name)
        if version == _NO_LIST:
            version = None
        if start is None or not await control.set_live(
            conn, slot.name, self._shard, start, version
        ):
            return False
        self.states[slot.name] = State.LIVE
        log.info("slot_live", slot=slot.name, listening_from=start)
        return True

    async def tell_released(self, conn: AnyConnection) -> bool:
        """Delete the rows of the slots given up whose last frames are committed; True when there were any."""
        told = False
        for name in [name for name, is_written in self.leaving.items() if is_written()]:
            told |= await control.released(conn, name, self._shard)
            self.leaving.pop(name, None)
        return told

    async def _release(self, rows: Iterable[control.Owned]) -> None:
        """Close the slots whose successor is live and surpassed: everything up to its start was heard, or cannot be."""
        heard = []
        for row in rows:
            slot = self.slots.get(row.slot)
            if slot is not None and row.state is State.RELEASING and _is_heard_elsewhere(slot, row):
                heard.append(row.slot)
        await self._drop_all(heard, "handed over")
        if heard:
            self.leaving |= dict.fromkeys(heard, self._mark())

    def _mark(self) -> Callable[[], bool]:
        """Return what says whether all that was collected until now is in the database."""
        marks = [(pipeline, pipeline.mark()) for pipeline in self._wiring.pipelines.values()]
        return lambda: all(pipeline.has_written(mark) for pipeline, mark in marks)

    # --- what others ask ---

    def is_closed(self) -> bool:
        """True after close(): nothing is served any more."""
        return self._closed

    @property
    def held(self) -> set[str]:
        """Slots of which a connection may be open: those that are served, and those that are ending."""
        return {*self.slots, *self._ending.values()}

    @property
    def extra(self) -> Budget:
        """The connections beyond one per slot."""
        return self._wiring.extra

    def assignment(self) -> Mapping[str, frozenset[str]]:
        """Slots and their markets, to be remembered; not those that neither the configuration nor the zone has."""
        return {
            name: slot.tickers
            for name, slot in self.slots.items()
            if name in self._known or name in self.states
        }

    @property
    def live(self) -> int:
        """Number of slots that are subscribed and heard."""
        return sum(slot.is_complete for slot in self.slots.values())


def _is_heard_elsewhere(slot: Slot, row: control.Owned) -> bool:
    """Take a step of the hand-over of a slot; True: close it now.

    One that the configuration has no more has no successor: another slot hears the same channel, or it has no market left.
    """
    if row.successor_from is not None:
        return slot.release(row.successor_from)
    if row.has_others:
        return False
    if is_mirrored(slot.name):
        return row.sibling_from is None or slot.release(row.sibling_from)
    return not slot.tickers
