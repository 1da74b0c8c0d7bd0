"""JSON schemas of the sections that values may pass on to the services, made of the services' own settings classes.

A key that a service would refuse is refused by helm already. What the chart itself decides (addresses, folders, the pod's
name) and what is secret is no part of them.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from libs.runtime.secret import OrFile, Secret
from libs.runtime.sections import BatchSettings, CaptureSettings, ExchangeSettings, SlotSettings
from libs.runtime.settings import Between
from services.archiver.settings import ArchiverSettings
from services.connector.settings import ConnectorSettings
from services.deduplicator.settings import DeduplicatorSettings
from services.operator.settings import OperatorSettings
from services.poller.settings import PollerSettings
from services.registry.settings import RegistrySettings
from services.simulator.settings import SimulatorSettings

DECIDED: Mapping[str, frozenset[str]] = {
    "exchange": frozenset({"environment", "rest_url", "ws_url", "private_key_file"}),
    "connector": frozenset(
        {"shard", "template_hash", "grace_s", "storage_bytes_max", "state_dir", "spool.bytes_max"}
    ),
    "archiver": frozenset({"root", "work_dir", "s3"}),
    "operator": frozenset({"namespace", "name", "kubeconfig", "peering", "owner"}),
    "simulator": frozenset({"host", "port", "control_host", "control_port", "keys", "journal_dir"}),
}
"""Section -> keys that the chart writes itself; nobody may set them beside it."""

SECTIONS: Mapping[str, type[Any]] = {
    "archiver": ArchiverSettings,
    "batches": BatchSettings,
    "capture": CaptureSettings,
    "connector": ConnectorSettings,
    "deduplicator": DeduplicatorSettings,
    "exchange": ExchangeSettings,
    "operator": OperatorSettings,
    "poller": PollerSettings,
    "registry": RegistrySettings,
    "simulator": SimulatorSettings,
    "slots": SlotSettings,
}


def definitions() -> dict[str, Any]:
    """Return `<section>Settings` -> schema, for every section that values pass on."""
    return {
        f"{name}Settings": _object(cls, DECIDED.get(name, frozenset()), "")
        for name, cls in sorted(SECTIONS.items())
    }


def _object(cls: type[Any], decided: frozenset[str], path: str) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    properties = {}
    for field in dataclasses.fields(cls):
        own = f"{path}{field.name}"
        if own not in decided and not _is_secret(hints[field.name]):
            properties[field.name] = _value(hints[field.name], decided, f"{own}.")
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _is_secret(hint: Any) -> bool:
    return hint is Secret or OrFile in getattr(hint, "__metadata__", ())


def _value(hint: Any, decided: frozenset[str], path: str) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [limit for limit in arguments[1:] if isinstance(limit, Between)]
        bounds = {"minimum": limits[0].low, "maximum": limits[0].high} if limits else {}
        return _value(arguments[0], decided, path) | bounds
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _value(arguments[0], decided, path)}
    if origin in (Union, types.UnionType):
        raise AssertionError(f"{path}: a setting that may be missing has no schema yet")
    if dataclasses.is_dataclass(hint):
        return _object(hint, decided, path)  # type: ignore[arg-type]
    return {"type": {int: "integer", float: "number", bool: "boolean", str: "string"}[hint]}
