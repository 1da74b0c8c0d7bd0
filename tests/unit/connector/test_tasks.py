"""When a shard may reserve more connections than it has."""

from typing import Any, cast

from services.connector.tasks import Shard


def test_after_a_break_in_heartbeats_no_connection_is_reserved_for_one_lease() -> None:
    """Others are not dead then, their leases are only old; before and after it, and at the start, more may be reserved."""
    shard = Shard(*cast(Any, (None,) * 6))
    assert [shard.beat(now_s) for now_s in (100.0, 102.0, 105.5)] == [True, True, True]
    assert [shard.beat(now_s) for now_s in (110.0, 112.0, 114.0, 115.9)] == [False] * 4
    assert shard.beat(116.0)
