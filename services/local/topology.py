"""The whole topology as data: which processes, with which files and ports. Pure, but for choosing free ports.

Each zone: registry, connectors, poller, and a PostgreSQL server of its own; beside them the production server, the
deduplicator, the archiver and, unless a real exchange is asked for, the simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.local.ports import free_ports
from services.local.processes import ProcessSpec

CONNECTORS_PER_ZONE = 2
PRODUCTION = "production"
ZONE_NAMES = ("a", "b", "c")


@dataclass(frozen=True, slots=True)
class Server:
    """Where one embedded PostgreSQL server answers, and the file of its roles' password."""

    port: int
    database: str
    password_file: Path

    def store(self, role: str) -> dict[str, Any]:
        """Return the `store:` section by which a service of this role connects."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "database": self.database,
            "user": role,
            "password_file": str(self.password_file),
        }


@dataclass(frozen=True, slots=True)
class Exchange:
    """Which exchange to capture; empty urls mean the environment's own."""

    environment: str
    rest_url: str
    ws_url: str
    api_key_ids: Mapping[str, str]
    """API key id of each zone."""
    private_key_file: Path


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return base with the values of over; mappings merge key by key, everything else is replaced.

    A secret given as a file takes the place of one given in clear.
    """
    result = {key: value for key, value in base.items() if f"{key}_file" not in over}
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def gatherer_config(
    template: Mapping[str, Any], zone: str, server: Server, exchange: Exchange
) -> dict[str, Any]:
    """Return the configuration file of one zone, shared by its registry, connectors and poller."""
    return merged(
        template,
        {
            "zone": zone,
            "account": exchange.api_key_ids[zone],
            "health": {"host": "127.0.0.1"},
            "metrics": {"host": "127.0.0.1"},
            "store": server.store("kd_writer"),
            "exchange": {
                "environment": exchange.environment,
                "rest_url": exchange.rest_url,
                "ws_url": exchange.ws_url,
                "api_key_id": exchange.api_key_ids[zone],
                "private_key_file": str(exchange.private_key_file),
            },
        },
    )


def production_config(
    template: Mapping[str, Any], zones: Mapping[str, Server], production: Server, archive: Path,
    window_s: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the configuration file of deduplicator and archiver."""
    return merged(
        template,
        {
            "health": {"host": "127.0.0.1"},
            "metrics": {"host": "127.0.0.1"},
            "gatherers": [
                {"zone": zone, "store": server.store("kd_reader")} for zone, server in zones.items()
            ],
            "production": production.store("kd_writer"),
            "archiver": {"root": str(archive), "window_s": window_s},
        },
    )


def process(
    name: str, service: str, config: Path, zone: str | None = None, **environment: str
) -> ProcessSpec:
    """Describe one service process with free health and metrics ports."""
    health, metrics = free_ports(2)
    return ProcessSpec(
        name=name,
        module=f"services.{service}",
        arguments=("--config", str(config)),
        environment={
            "KALSHI_DATA_HEALTH__PORT": str(health),
            "KALSHI_DATA_METRICS__PORT": str(metrics),
            **environment,
        },
        health_port=health,
        zone=zone,
    )


def production_processes(config: Path) -> list[ProcessSpec]:
    """Describe the deduplicator and the archiver; they share a file, but not a role of the database."""
    return [
        process("deduplicator", "deduplicator", config),
        process("archiver", "archiver", config, KALSHI_DATA_PRODUCTION__USER="kd_archiver"),
    ]


def connector_process(
    zone: str, config: Path, shards: Path, number: int, **environment: str
) -> ProcessSpec:
    """Describe one connector; it has a folder of its own under `shards`, named as its shard."""
    name = f"connector-{zone}-{number}"
    return process(
        name, "connector", config, zone,
        KALSHI_DATA_CONNECTOR__SHARD=name,
        KALSHI_DATA_CONNECTOR__STATE_DIR=str(shards / name),
        **environment,
    )  # fmt: skip


def zone_processes(
    zone: str, config: Path, shards: Path, connectors: int = CONNECTORS_PER_ZONE
) -> list[ProcessSpec]:
    """Describe a zone's processes: registry, connectors, poller."""
    numbers = range(1, connectors + 1)
    return [
        process(f"registry-{zone}", "registry", config, zone),
        *(connector_process(zone, config, shards, number) for number in numbers),
        process(f"poller-{zone}", "poller", config, zone),
    ]
