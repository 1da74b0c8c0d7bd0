"""A Gatherer as the operator reads it. Pure: an object of the API in, frozen values out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from libs.kube.client import Json
from libs.kube.objects import Kind
from libs.runtime.sections import SlotSettings
from services.operator.errors import GathererInvalid

GATHERERS: Final = Kind("kalshi-data.io", "v1alpha1", "gatherers")


@dataclass(frozen=True, slots=True)
class Database:
    """Where a zone's database is; secret: name of the Secret with the planner's `username` and `password`."""

    host: str
    port: int
    name: str
    secret: str


@dataclass(frozen=True, slots=True)
class Gatherer:
    """One zone as it is to be. status: what the object says now; uid: another one is another Gatherer of the same name;
    account_connections_max: the whole account's, of which slots.connections_max is the zone's part.
    """

    name: str
    uid: str
    generation: int
    shards: int
    deployment: str
    slots: SlotSettings
    database: Database
    account: str
    account_connections_max: int
    pins: Mapping[str, str] = field(default_factory=dict)
    status: Json = field(default_factory=dict)


def parse_gatherer(found: Json) -> Gatherer:
    """Read an object of the API.

    Raises:
        GathererInvalid: a field is missing or wrong; the CRD lets none of these in, another version of it may.
    """
    meta = found["metadata"]
    try:
        spec = found["spec"]
        slots = SlotSettings(
            **{kind: int(spec["slots"][kind]) for kind in _KINDS},
            connections_max=int(spec.get("connectionsMax", 200)),
        )
        gatherer = Gatherer(
            name=meta["name"],
            uid=meta["uid"],
            generation=meta["generation"],
            shards=int(spec["shards"]),
            deployment=spec["deployment"],
            slots=slots,
            database=_database(spec["database"]),
            account=spec.get("account", "default"),
            account_connections_max=int(spec.get("accountConnectionsMax", slots.connections_max)),
            pins=dict(spec.get("pins") or {}),
            status=found.get("status") or {},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise GathererInvalid(f"{meta.get('name')}: {type(error).__name__} {error}") from error
    faults = list(slots.check())
    if faults:
        raise GathererInvalid(f"{gatherer.name}: {'; '.join(faults)}")
    return gatherer


def _database(found: Mapping[str, Any]) -> Database:
    return Database(found["host"], int(found.get("port", 5432)), found["name"], found["secretName"])


_KINDS: Final = ("orderbook", "ticker", "trade", "lifecycle")
