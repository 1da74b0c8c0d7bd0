from dataclasses import replace
from pathlib import Path

import yaml

from libs.marketdata.tables import Family
from libs.runtime.secret import Secret
from libs.runtime.sections import BatchSettings, ExchangeSettings, SlotSettings, StoreSettings
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
        tickers_rows=8, tickers_age_ms=9,
    )  # fmt: skip
    limits = replace(SETTINGS, batches=batches).limits()
    assert {family: (due.rows, due.size_bytes, due.age) for family, due in limits.items()} == {
        Family.DELTAS: (1, 7, 2_000),
        Family.TRADES: (3, 7, 4_000),
        Family.TICKERS: (8, 7, 9_000),
        Family.REST: (5, 7, 6_000),
    }


def test_a_heartbeat_may_be_lost() -> None:
    """Two fit into the lease that all shards have."""
    assert list(ConnectorSettings("c-1", heartbeat_s=LEASE_S / 2).check()) == []
    (fault,) = ConnectorSettings("c-1", heartbeat_s=LEASE_S / 2 + 0.1).check()
    assert fault.startswith("heartbeat_s: must be at most half of the shards' lease of 6.0 s")


def test_connections_of_split_slots_count_to_the_account() -> None:
    """Named with their numbers; what the slots alone do not fit into is said by their own section."""
    tight = replace(SETTINGS, slots=SlotSettings(144, 2, 2, 2, connections_max=154))
    (fault,) = tight.check()
    assert fault == (
        "connector.extra_connections_max: 150 slots + 1 to move + 4 extra are 155 connections,"
        " 1 above slots.connections_max of 154; lower it"
    )
    for connections_max in (150, 155, 200):
        fits = replace(SETTINGS, slots=SlotSettings(144, 2, 2, 2, connections_max))
        assert list(fits.check()) == []
    (own,) = SlotSettings(144, 2, 2, 2, 150).check()
    assert (
        "150 slots (144 + 2 + 2 + 2): with one to move they are 151 connections, 1 above it" in own
    )


def test_the_committed_pool_leaves_a_connection_for_everybody() -> None:
    """Lanes, two listeners and a spool's lane hold theirs; a busy follower keeps no heartbeat waiting for the last one."""
    file = Path(__file__).parents[3] / "config" / "gatherer.yaml"
    held = len(Family) + 2 + 1
    asking = len(("heartbeat", "follow", "size", "wake-ups", "what a spool left"))
    assert yaml.safe_load(file.read_text())["store"]["pool_size_max"] >= held + asking
