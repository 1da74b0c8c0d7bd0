"""When a shard may reserve more connections than it has, and what it says of its database."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from libs.store.errors import SchemaAway, StoreUnavailable
from libs.store.planner import Planner
from libs.telemetry.metrics import Metrics
from services.connector import tasks
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
