"""The loop around a single turn, and living under a lease."""

import asyncio
from uuid import uuid4

import pytest

from libs.exchange.errors import AuthRejected, TransportError, Undecodable
from libs.runtime.clock import ManualClock
from libs.runtime.health import HealthState
from libs.runtime.leasing import LeaseLost, keep_lease
from libs.runtime.repeat import is_worth_repeating, repeat
from libs.runtime.service import Runtime, orderly
from libs.store.errors import SchemaMismatch, StoreConflict, StoreUnavailable
from libs.store.leases import Lease
from libs.telemetry.metrics import Metrics


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A runtime whose waits take no time."""
    clock, metrics = ManualClock(0), Metrics("a")
    made = Runtime(clock, asyncio.Event(), HealthState("s", "a", clock, metrics), metrics)

    async def sleep(_: Runtime, seconds: float, until: asyncio.Event | None = None) -> bool:
        clock.advance(seconds)
        await asyncio.sleep(0)
        return not (until or made.stop).is_set()

    monkeypatch.setattr(Runtime, "sleep", sleep)
    return made


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (StoreUnavailable("away"), True),
        (TransportError("away"), True),
        (Undecodable("odd"), True),
        (AuthRejected("key"), False),
        (StoreConflict("two"), False),
        (SchemaMismatch("old"), False),
        (ValueError("ours"), False),
    ],
)
def test_what_is_worth_repeating(error: Exception, worth: bool) -> None:
    """What may pass by itself is repeated; a refused key, a second writer and our own mistakes are not."""
    assert is_worth_repeating(error) is worth


async def test_faults_are_counted_shown_and_waited_out(runtime: Runtime) -> None:
    """Delays double; after a good turn the fault is gone from /health."""
    outcomes = [TransportError("away")] * 3 + [None]

    async def work() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        runtime.stop.set()

    await repeat(runtime, "t", work, 10.0)
    assert runtime.clock.monotonic() == pytest.approx(0.5 + 1.0 + 2.0 + 10.0)
    assert runtime.health.document()["fault t"] is None
    counted = {"task": "t", "zone": "a"}
    registry = runtime.metrics.registry
    assert registry.get_sample_value("kalshi_data_task_faults_total", counted) == 3.0


async def test_a_database_is_asked_again_within_two_seconds(runtime: Runtime) -> None:
    """However long it was away."""
    failures = 10

    async def work() -> None:
        nonlocal failures
        failures -= 1
        if failures:
            raise StoreUnavailable("away")
        runtime.stop.set()

    await repeat(runtime, "t", work, 0.0)
    assert runtime.clock.monotonic() == pytest.approx(0.5 + 1.0 + 7 * 2.0)


async def test_what_is_not_worth_repeating_ends_the_task(runtime: Runtime) -> None:
    """A refused key comes out as it is."""

    async def work() -> None:
        raise AuthRejected("wrong key")

    with pytest.raises(AuthRejected, match="wrong key"):
        await repeat(runtime, "t", work, 1.0)


async def test_a_fault_while_stopping_is_no_fault(runtime: Runtime) -> None:
    """What fails because of the stop is neither counted nor waited for."""

    async def work() -> None:
        runtime.stop.set()
        raise TransportError("stopping")

    await repeat(runtime, "t", work, 1.0)
    assert "fault t" not in runtime.health.document()


class FakeLease(Lease):
    """A lease that answers its renewals from a list."""

    def __init__(self, answers: list[bool | StoreUnavailable]) -> None:
        self.name, self.ttl_s, self.holder, self.answers = "l", 6.0, uuid4(), answers

    async def renew(self) -> bool:
        """Return or raise the next answer."""
        answer = self.answers.pop(0)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer


async def test_a_lost_lease_ends_the_process_a_lost_database_does_not(runtime: Runtime) -> None:
    """Renewed every third of its life; only another holder ends it."""
    lease = FakeLease([True, StoreUnavailable("away"), True, False])
    with pytest.raises(LeaseLost, match="taken by another"):
        await keep_lease(runtime, lease)
    assert runtime.clock.monotonic() == pytest.approx(8.0)


async def test_a_lease_may_be_kept_beyond_stop(runtime: Runtime) -> None:
    """For work that goes on after it: until that says it is done."""
    done = asyncio.Event()

    class Counted(FakeLease):
        async def renew(self) -> bool:
            runtime.stop.set()
            if runtime.clock.monotonic() >= 10.0:
                done.set()
            return True

    await keep_lease(runtime, Counted([]), done)
    assert runtime.clock.monotonic() == pytest.approx(12.0)


async def test_every_store_away_at_the_stop_is_orderly_anything_else_is_not() -> None:
    """Several tasks may have lost the database together; one other fault among them is told."""
    stop = asyncio.Event()

    async def fail(*errors: Exception) -> None:
        raise ExceptionGroup("tasks", list(errors))

    with pytest.raises(ExceptionGroup):
        await orderly(fail(StoreUnavailable("away")), stop)
    stop.set()
    await orderly(fail(StoreUnavailable("away"), StoreUnavailable("away")), stop)
    with pytest.raises(ExceptionGroup):
        await orderly(fail(StoreUnavailable("away"), ValueError("ours")), stop)
