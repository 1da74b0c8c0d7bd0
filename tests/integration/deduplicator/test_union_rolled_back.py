"""A merge that fails at any of its statements while the other zones' copies of the same facts are on their way.

What the writer remembers must be what is committed, no more: else the copies that come later would be taken for merged,
and be lost though every zone has them. Real writer, merge room and board; the readers' pages come from memory.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, permutations, product
from typing import Any

import asyncpg
import pytest

from libs.marketdata.tables import Family
from libs.runtime.clock import SystemClock
from libs.store import merger
from libs.store.merge_errors import WriterStopped
from libs.store.merge_transaction import Merged
from libs.store.merger import ProductionWriter
from libs.store.pool import Connection, Target, connect
from libs.telemetry.metrics import Metrics
from services.deduplicator.board import Board
from services.deduplicator.merge import MergeRoom
from services.deduplicator.settings import DeduplicatorSettings
from services.deduplicator.tasks import Merging
from tests.integration.deduplicator.pages import ZONES, Feeder, epoch_of, gatherers_of, stored
from tests.simulation.heard import Cut, Heard, hear
from tests.simulation.published import Truth, short_truth
from tests.simulation.united import judge
from tests.support.postgres import NewDatabase

ORDERS = list(permutations(range(3)))
TURNS_MAX = 60
COMMIT = "execute COMMIT"
STATEMENTS = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "copy_to_table")

Fail = Callable[["Faulty", Callable[[], Awaitable[Any]]], Awaitable[Any]]


async def refused(_: "Faulty", __: Callable[[], Awaitable[Any]]) -> Any:
    """The server gives the transaction up, as after a deadlock."""
    raise asyncpg.DeadlockDetectedError("deadlock detected")


async def unmergeable(_: "Faulty", __: Callable[[], Awaitable[Any]]) -> Any:
    """The server cannot hold a value, this once."""
    raise asyncpg.NumericValueOutOfRangeError("out of range")


async def cut(faulty: "Faulty", _: Callable[[], Awaitable[Any]]) -> Any:
    """The connection breaks before the statement: if it is COMMIT, nothing is committed."""
    faulty.conn.terminate()
    raise asyncpg.ConnectionDoesNotExistError("cut before the statement")


async def cut_after(faulty: "Faulty", run: Callable[[], Awaitable[Any]]) -> Any:
    """The connection breaks before the answer: if it is COMMIT, everything is committed and nobody is told."""
    await run()
    faulty.conn.terminate()
    raise ConnectionResetError("cut before the answer")


FAILS: tuple[Fail, ...] = (refused, unmergeable, cut, cut_after)


@dataclass
class Faults:
    """Which statement of which merge fails, and what happens meanwhile.

    at: its number in the merge, from 0. said: every statement of the merge that was to fail.
    """

    fail: Fail
    at: int
    meanwhile: Callable[[], Awaitable[None]]
    is_armed: bool = False
    said: list[str] = field(default_factory=list)
    has_failed: bool = False

    async def statement(
        self, faulty: "Faulty", said: str, run: Callable[[], Awaitable[Any]]
    ) -> Any:
        if not self.is_armed:
            return await run()
        self.said.append(said)
        if len(self.said) != self.at + 1:
            self.is_armed = said != COMMIT
            return await run()
        self.is_armed, self.has_failed = False, True
        await self.meanwhile()
        return await self.fail(faulty, run)


class Faulty:
    """A connection to production whose statements may fail."""

    def __init__(self, conn: Connection, faults: Faults) -> None:
        self.conn, self._faults = conn, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.conn, name)
        if name not in STATEMENTS:
            return found

        async def statement(*args: Any, **kwargs: Any) -> Any:
            return await self._faults.statement(
                self, f"{name} {args[0]}", lambda: found(*args, **kwargs)
            )

        return statement


class Bench:
    """One production for many cases."""

    def __init__(self, production: Target, conn: Connection, patch: pytest.MonkeyPatch) -> None:
        self.conn = conn
        self._production = production
        self._patch = patch
        self._metrics = Metrics()
        self._cases = count()

    async def case(self, fail: Fail, at: int, order: Sequence[int], *, alone: bool) -> Faults:
        """Let statement `at` of the first merge fail, and judge what is there when everything is merged.

        Args:
            order: which gatherer is which zone, and so whose page comes first. alone: the others' pages come while the
                statement fails; else they are in the same transaction.
        """
        case = next(self._cases)
        truth, heard = make(case)
        writer = ProductionWriter(self._production)
        board = Board(list(ZONES), pages_ahead=2)
        settings = DeduplicatorSettings(backoff_s_min=0.01, backoff_s_max=0.02)
        merging = Merging(board, writer, settings, SystemClock(), self._metrics)
        feeders = [Feeder(zone, board, writer) for zone in ZONES]
        for place, feeder in zip(order, feeders, strict=True):
            feeder.take(heard[place], case, place + 1)

        async def others() -> None:
            # The writer's turn is taken: whoever asked it for cursors now would wait for ever, as a reader does.
            for feeder in feeders[1:] if alone else ():
                await feeder.hand_over()

        faults = Faults(fail, at, others)
        self._arm(faults)
        assert await merging.begin_anew(asyncio.Event())
        for feeder in feeders:
            await feeder.stand()
        await (
            feeders[0].hand_over() if alone else asyncio.gather(*(f.hand_over() for f in feeders))
        )
        faults.is_armed = True
        await merge_all(merging, board, feeders)
        await writer.release()
        assert judge(truth, heard, await stored(self.conn, case)) == [], (fail.__name__, at, order)
        return faults

    def _arm(self, faults: Faults) -> None:
        @asynccontextmanager
        async def faulty(target: Target, application: str = "") -> AsyncIterator[Any]:
            async with connect(target, application) as conn:
                yield Faulty(conn, faults)

        self._patch.setattr(merger, "connect", faulty)


async def merge_all(merging: Merging, board: Board, feeders: Sequence[Feeder]) -> None:
    """Be the writer's loop and the readers until nothing is left."""
    for _ in range(TURNS_MAX):
        try:
            if not board.ready.is_set():
                assert await merging.begin_anew(asyncio.Event())
            if not await merging.merge_once() and not [f for f in feeders if await f.offer()]:
                return
        except WriterStopped:
            board.begin_anew()
    raise AssertionError("it does not end")


def make(case: int) -> tuple[Truth, list[Heard]]:
    """Three gatherers of which one heard everything, one lost the middle of a millisecond, one was dialled again."""
    truth = short_truth(epoch_of(case))
    a, b, c = gatherers_of(case)
    cuts = [Cut("lost", 1, 3), Cut("reconnect", 5, 6)]
    heard = [hear(a, truth, []), hear(b, truth, cuts[:1]), hear(c, truth, cuts[1:])]
    for one in heard:
        # One family is enough, and every other costs four statements a merge.
        one.batches = {Family.DELTAS: one.batches[Family.DELTAS]}
    return truth, heard


@pytest.fixture
async def bench(new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """An empty production."""
    production = new_database("production")
    async with connect(production) as conn:
        yield Bench(production, conn, monkeypatch)


def ways(statement: str) -> list[Fail]:
    """Return the ways in which a statement can fail; only one that carries rows can be told that they do not fit."""
    carries = statement.startswith(("copy_to_table", "execute INSERT"))
    return [fail for fail in FAILS if carries or fail is not unmergeable]


async def statements(bench: Bench) -> list[str]:
    """Return the statements of the merge that is to fail."""
    faults = await bench.case(refused, 1 << 30, ORDERS[0], alone=True)
    assert faults.said[0].startswith("execute BEGIN")
    assert faults.said[-1] == COMMIT
    assert any(said.startswith("copy_to_table") for said in faults.said)
    return faults.said


async def test_a_merge_that_fails_at_any_statement_loses_and_doubles_nothing(bench: Bench) -> None:
    """Afterwards each fact is there as often as in the truth, with its claims.

    From BEGIN to COMMIT each statement fails in one way, the last two in every way; the others' pages wait, or are in it.
    """
    said = await statements(bench)
    for at, statement in enumerate(said):
        fails = ways(statement)
        for number, fail in enumerate(fails):
            if at >= len(said) - 2 or number == at % len(fails):
                order = ORDERS[(at + number) % len(ORDERS)]
                faults = await bench.case(fail, at, order, alone=at % 3 > 0)
                assert faults.has_failed, statement


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_it_holds_for_every_statement_way_and_order(bench: Bench) -> None:
    """Everything above in all combinations, about a thousand."""
    said = await statements(bench)
    for (at, statement), order, alone in product(enumerate(said), ORDERS, (True, False)):
        for fail in ways(statement):
            faults = await bench.case(fail, at, order, alone=alone)
            assert faults.has_failed


def known_too_early(patch: pytest.MonkeyPatch) -> None:
    """What was staged is remembered although its transaction failed."""

    def remember(room: MergeRoom) -> None:
        room.confirm(Merged(0, {}, {}, ()), 1 << 60)

    patch.setattr(MergeRoom, "abandon", remember)
    patch.setattr(MergeRoom, "forget", remember)


@pytest.mark.parametrize("fail", [refused, unmergeable], ids=lambda fail: fail.__name__)
async def test_an_identity_that_is_known_too_early_would_be_seen(bench: Bench, fail: Fail) -> None:
    """The same failure with a room that remembers too much: facts are missing, and the judge says so."""
    with pytest.MonkeyPatch.context() as patch:
        known_too_early(patch)
        with pytest.raises(AssertionError, match="sum"):
            await bench.case(fail, 6, ORDERS[0], alone=True)
