"""When a shard may reserve more connections than it has, and what it says of its database."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from libs.store import control
from libs.store.errors import SchemaAway, StoreUnavailable
from libs.store.planner import Planner
from libs.telemetry.metrics import Metrics
from services.connector import tasks
from services.connector.remembered import recall, remember
from services.connector.tasks import Shard


def test_after_a_break_in_heartbeats_no_connection_is_reserved_for_one_lease() -> None:
    """Others are not dead then, their leases are only old; before and after it, and at the start, more may be reserved."""
    shard = Shard(*cast(Any, (None,) * 6))
    assert [shard.beat(now_s) for now_s in (100.0, 102.0, 105.5)] == [True, True, True]
    assert [shard.beat(now_s) for now_s in (110.0, 112.0, 114.0, 115.9)] == [False] * 4
    assert shard.beat(116.0)


def test_a_schema_that_does_not_fit_is_said_beside_a_database_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once each, until the control tables are there again."""
    said: list[str] = []
    monkeypatch.setattr(tasks, "log", SimpleNamespace(
        warning=lambda event, **more: said.append(more["error"]), info=said.append
    ))  # fmt: skip
    runtime = SimpleNamespace(metrics=Metrics("a"))
    shard = Shard(*cast(Any, (None, runtime, None, None, None, Planner("a"))))
    for _ in range(2):
        for error in (StoreUnavailable("away"), SchemaAway("no table"), StoreUnavailable("away")):
            shard.away("heartbeat", error)
    shard.back()
    shard.away("heartbeat", SchemaAway("no table"))
    assert said == ["away", "no table", "control_back", "no table"]


async def test_no_heartbeat_prolongs_a_lease_that_was_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is on its way comes first; one that comes later asks nothing. Else a shard that is gone would seem alive."""
    done: list[str] = []
    answered = asyncio.Event()

    async def answer(name: str) -> bool:
        if name == "heartbeat":
            await answered.wait()
        done.append(name)
        return True

    def door(name: str) -> Any:
        return lambda *_, **__: answer(name)

    @asynccontextmanager
    async def connection(*_: Any) -> AsyncIterator[None]:
        yield None

    monkeypatch.setattr(tasks, "borrow_patiently", connection)
    monkeypatch.setattr(tasks, "_reserve", door("reserve"))
    for name in ("heartbeat", "others_drain", "deregister"):
        monkeypatch.setattr(control, name, door(name))
    own = SimpleNamespace(shard="connector-a-1", template_hash="", capacity=1)
    holdings = SimpleNamespace(slots={}, tell_released=door("released"))
    shard = Shard(*cast(Any, (SimpleNamespace(connector=own), None, None, None, holdings, None)))
    shard.registered = True
    shard.fits.set()
    async with asyncio.TaskGroup() as both:
        both.create_task(tasks.heartbeat_once(shard))
        await asyncio.sleep(0)
        both.create_task(tasks.end_lease(shard))
        for _ in range(10):
            await asyncio.sleep(0)
        assert done == []
        answered.set()
    await tasks.heartbeat_once(shard)
    assert done == ["heartbeat", "others_drain", "reserve", "released", "deregister"]


async def test_a_volume_that_answers_nothing_holds_neither_the_loop_nor_the_next_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first turn waits for a bounded time, the next not at all; what was not kept is said, and other slots are followed."""
    monkeypatch.setattr(tasks, "ASSIGNMENT_S_MAX", 0.05)
    said: list[str] = []
    monkeypatch.setattr(
        tasks, "log", SimpleNamespace(warning=lambda event, **more: said.append(more["error"]))
    )

    @asynccontextmanager
    async def connection(*_: Any) -> AsyncIterator[None]:
        yield None

    monkeypatch.setattr(tasks, "borrow_patiently", connection)
    freed, followed = threading.Event(), []

    async def follow(_: Any) -> None:
        followed.append(True)
        holdings.changed = True

    holdings = SimpleNamespace(
        follow=follow, changed=False, assignment=lambda: {"orderbook/0": frozenset({"A"})}
    )
    connector = SimpleNamespace(state_dir=str(tmp_path), shard="connector-a-1")
    settings = SimpleNamespace(connector=connector)
    shard = Shard(*cast(Any, (settings, None, None, None, holdings, None)))
    monkeypatch.setattr(tasks, "remember", lambda *_: freed.wait(30))
    await tasks.follow_once(shard)
    await tasks.follow_once(shard)
    assert len(followed) == 2
    assert said == ["the disk has not answered for 0.05 s", "the disk does not answer"]
    freed.set()
    monkeypatch.setattr(tasks, "remember", remember)
    await shard.disk.do(lambda: None, hangs_s=None)
    await tasks.follow_once(shard)
    assert recall(tmp_path, "connector-a-1") == {"orderbook/0": frozenset({"A"})}
