from dataclasses import replace

from libs.marketdata.tables import Family
from libs.runtime.secret import Secret
from libs.runtime.sections import BatchSettings, ExchangeSettings, StoreSettings
from libs.store.control import LEASE_S
from services.connector.settings import ConnectorSettings, Settings

SETTINGS = Settings(
    zone="a",
    exchange=ExchangeSettings("key", "key.pem"),
    store=StoreSettings("kalshi", "kd_writer", Secret("s")),
    connector=ConnectorSettings("c-1"),
)


def test_each_family_has_its_own_rows_and_age() -> None:
    """Ages in microseconds; those of the snapshots rule the batches of the family rest."""
    batches = BatchSettings(
        deltas_rows=1, deltas_age_ms=2, trades_rows=3, trades_age_ms=4, snapshots_rows=5,
        snapshots_age_ms=6, bytes_max=7,
    )  # fmt: skip
    limits = replace(SETTINGS, batches=batches).limits()
    assert {family: (due.rows, due.size_bytes, due.age) for family, due in limits.items()} == {
        Family.DELTAS: (1, 7, 2_000),
        Family.TRADES: (3, 7, 4_000),
        Family.REST: (5, 7, 6_000),
    }


def test_a_heartbeat_may_be_lost() -> None:
    """Two fit into the lease that all shards have."""
    assert list(ConnectorSettings("c-1", heartbeat_s=LEASE_S / 2).check()) == []
    (fault,) = ConnectorSettings("c-1", heartbeat_s=LEASE_S / 2 + 0.1).check()
    assert fault.startswith("heartbeat_s: must be at most half of the shards' lease of 6.0 s")
