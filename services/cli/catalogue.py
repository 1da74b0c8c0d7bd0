"""The services by name, and where each keeps its settings; modules are named, imported only when asked for."""

import importlib
from typing import Any, NamedTuple

from libs.runtime.sections import (
    DEDUPLICATOR_FILE,
    GATHERER_FILE,
    OPERATOR_FILE,
    SIMULATOR_FILE,
)


class Service(NamedTuple):
    """One service: its configuration file (without .yaml) and every section such a file may have."""

    file: str
    sections: frozenset[str]


SERVICES = {
    "registry": Service("gatherer", GATHERER_FILE),
    "connector": Service("gatherer", GATHERER_FILE),
    "poller": Service("gatherer", GATHERER_FILE),
    "deduplicator": Service("deduplicator", DEDUPLICATOR_FILE),
    "archiver": Service("deduplicator", DEDUPLICATOR_FILE),
    "simulator": Service("simulator", SIMULATOR_FILE),
    "operator": Service("operator", OPERATOR_FILE),
}


def settings_class(service: str) -> type[Any]:
    """The class `Settings` of a service's settings module.

    Raises:
        ModuleNotFoundError: the service, or a library it needs, is not installed.
    """
    module = importlib.import_module(f"services.{service}.settings")
    settings = module.Settings
    assert isinstance(settings, type)
    return settings
