"""Production's server goes away under load, or comes back as an older copy of itself: the merge catches up, exactly."""

from dataclasses import dataclass
from typing import ClassVar

from libs.store.pool import connect
from services.local.topology import PRODUCTION
from tests.soak.evidence import Evidence, Measured
from tests.soak.ground import Ground
from tests.soak.merging import (
    CALM_S,
    DEDUPLICATOR,
    OfTheMerge,
    merge_no,
    until_caught_up,
    until_merging,
)

SAID_S_MAX = 30.0


async def _until_waiting(ground: Ground) -> float:
    async def waits() -> bool:
        reason = (await ground.run.health(DEDUPLICATOR)).get("reason") or ""
        return str(reason).startswith("waiting for production")

    return await ground.until(waits, SAID_S_MAX, "the deduplicator says what it waits for")


@dataclass
class ProductionAway(OfTheMerge):
    """seconds without production's server."""

    name: ClassVar[str] = "production-away"
    seconds: float = 60.0

    async def act(self, ground: Ground) -> None:
        await until_merging(ground)
        await ground.rest(CALM_S)
        self._begun = ground.clock.now()
        await ground.stop_database(PRODUCTION)
        self._said_s = await _until_waiting(ground)
        await ground.rest(self.seconds)
        await ground.start_database(PRODUCTION)
        self._back_s = await until_merging(ground)
        self._caught_up_s = await until_caught_up(ground)
        self._done = ground.clock.now()
        await ground.rest(CALM_S)

    async def figures(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        lost = evidence.missing((self._begun, self._done))
        return [
            Measured("away, and said so after", f"{self.seconds:.0f} s, {self._said_s:.1f} s", "-", True),
            Measured("merging again after", f"{self._back_s:.1f} s", "-", True),
            Measured("caught up after that", f"{self._caught_up_s:.1f} s", "-", True),
            Measured("deltas and trades lost", str(len(lost)), "0", not lost),
        ]  # fmt: skip


@dataclass
class ProductionRestored(OfTheMerge):
    """older_s: how much older the copy is when it takes production's place, while the deduplicator runs."""

    name: ClassVar[str] = "production-restored"
    older_s: float = 600.0
    timeout_s: float = 1200.0

    async def act(self, ground: Ground) -> None:
        await until_merging(ground)
        await ground.rest(CALM_S)
        self._begun = ground.clock.now()
        await ground.stop_database(PRODUCTION)
        copy = await ground.copy_database(PRODUCTION)
        await ground.start_database(PRODUCTION)
        async with connect(ground.run.target(PRODUCTION)) as conn:
            self._copied = await conn.fetchval("select merge_no from writer_lease")
        await until_merging(ground)
        await ground.rest(self.older_s)
        await ground.stop_database(PRODUCTION)
        self._newest = await merge_no(ground)
        await ground.replace_database(copy, PRODUCTION)
        await ground.start_database(PRODUCTION)

        async def beyond() -> bool:
            return await merge_no(ground) > self._newest

        self._back_s = await ground.until(beyond, SAID_S_MAX, "merging above what was seen before")
        self._caught_up_s = await until_caught_up(ground)
        self._done = ground.clock.now()
        await ground.rest(CALM_S)

    async def figures(self, ground: Ground, evidence: Evidence) -> list[Measured]:
        lost = evidence.missing((self._begun, self._done))
        async with connect(ground.run.target(PRODUCTION)) as conn:
            again = await conn.fetchval(
                "select count(*) from merges where merge_no > $1 and merge_no <= $2",
                self._copied, self._newest,
            )  # fmt: skip
        span = f"{self._copied:,} .. {self._newest:,}"
        return [
            Measured("the copy's age", f"{self.older_s:.0f} s", "-", True),
            Measured("merging again after", f"{self._back_s:.1f} s", "-", True),
            Measured("caught up after that", f"{self._caught_up_s:.1f} s", "-", True),
            Measured("numbers given a second time", f"{again} of {span}", "0", again == 0),
            Measured("deltas and trades lost", str(len(lost)), "0", not lost),
        ]
