"""The topology as data, and the live table's figures."""

from pathlib import Path

from rich.console import Console

from services.local import live
from services.local.topology import (
    Exchange,
    Server,
    gatherer_config,
    merged,
    production_config,
    production_processes,
    zone_processes,
)

SERVER = Server(5, "kalshi", Path("pw"))


def test_merging_goes_key_by_key_and_a_secret_file_replaces_a_secret() -> None:
    """Lists are replaced, mappings merged; a password in clear does not stand beside its file."""
    base = {"store": {"port": 1, "password": "x"}, "zones": [1, 2], "same": 3}
    over = {"store": {"port": 2, "password_file": "f"}, "zones": [3]}
    assert merged(base, over) == {
        "store": {"port": 2, "password_file": "f"},
        "zones": [3],
        "same": 3,
    }


def test_every_process_has_its_own_ports_and_role() -> None:
    """Two connectors a zone with their own shard names; the archiver is another role than the deduplicator."""
    specs = zone_processes("a", Path("a.yaml"), Path("shards")) + production_processes(
        Path("p.yaml")
    )
    assert [spec.name for spec in specs] == [
        "registry-a", "connector-a-1", "connector-a-2", "poller-a", "deduplicator", "archiver",
    ]  # fmt: skip
    ports = [
        spec.environment[name]
        for spec in specs
        for name in ("KALSHI_DATA_HEALTH__PORT", "KALSHI_DATA_METRICS__PORT")
    ]
    assert len(set(ports)) == len(ports)
    assert specs[1].environment["KALSHI_DATA_CONNECTOR__SHARD"] == "connector-a-1"
    assert specs[1].environment["KALSHI_DATA_CONNECTOR__STATE_DIR"] == "shards/connector-a-1"
    assert specs[-1].environment["KALSHI_DATA_PRODUCTION__USER"] == "kd_archiver"


def test_a_zone_has_as_many_connectors_as_it_is_asked_for() -> None:
    """Each under a name of its own."""
    names = [spec.name for spec in zone_processes("a", Path("a.yaml"), Path("shards"), 1)]
    assert names == ["registry-a", "connector-a-1", "poller-a"]


def test_configurations_name_each_databases_own_role() -> None:
    """A gatherer writes, the deduplicator reads gatherers and writes production."""
    exchange = Exchange("simulator", "http://r", "ws://w", {"a": "key-a"}, Path("k.pem"))
    zone = gatherer_config({"slots": {"orderbook": 8}}, "a", SERVER, exchange)
    assert (zone["zone"], zone["account"], zone["slots"]) == ("a", "key-a", {"orderbook": 8})
    assert zone["store"]["user"] == "kd_writer" and zone["exchange"]["api_key_id"] == "key-a"
    both = production_config({}, {"a": SERVER}, SERVER, Path("archive"), 10)
    assert both["gatherers"] == [{"zone": "a", "store": SERVER.store("kd_reader")}]
    assert both["production"]["user"] == "kd_writer"
    assert both["archiver"] == {"root": "archive", "window_s": 10}


def moment(at: float, frames: int, rows: int) -> live.Moment:
    health = {
        "service": "connector",
        "connections": 5,
        "frames": frames,
        "rows": {"trades": rows},
        "lag_ms": 7,
    }
    zones = {"a": live.zone_figures([health, health, {}]), "b": live.zone_figures([{}])}
    merge = {
        "rows_inserted": rows,
        "duplicates": 12,
        "gatherers": {"a": {"lag_ms": 3, "status": "reading"}},
    }
    return live.Moment(at, zones, live.merge_figures(merge, {"rows": 9}))


def shown(now: live.Moment, before: live.Moment | None) -> list[list[str]]:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(live.table_of(now, before, "t"))
        text = console.export_text()
    return [line.split() for line in text.splitlines() if "│" in line]


def test_rates_come_from_two_moments_and_never_go_negative() -> None:
    """Frames and rows per second of both connectors; a zone that is away says so; a restart shows no rate."""
    first, second = moment(10, 100, 40), moment(12, 200, 100)
    rows = shown(second, first)
    assert [cell for cell in rows[0] if cell != "│"] == [
        "a",
        "2",
        "processes,",
        "reading",
        "10",
        "100",
        "60",
        "7",
        "3",
        "0",
    ]
    assert [cell for cell in rows[1] if cell != "│"] == ["b", "away", "0", "0", "0", "-", "-", "0"]
    assert "30" in rows[2] and "12" in rows[2]
    assert [cell for cell in shown(first, second)[0] if cell != "│"][5:7] == ["-", "-"]
