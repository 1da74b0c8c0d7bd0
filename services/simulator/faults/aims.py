"""Whether there is anybody whom a fault is aimed at: a name nobody bears is a slip of the pen, not a fault for nobody. Pure."""

from collections.abc import Mapping

from services.simulator.faults.menu import On


def unknown_aim(on: On, zones: Mapping[str, str]) -> str:
    """Say which name of `on` nobody bears, and who there is; "" when somebody does.

    Args:
        zones: zone of each key id, "" where it has none. Without a key nobody can be told apart, and nothing is said.
    """
    if not zones:
        return ""
    if on.key and on.key not in zones:
        return f"on.key: there is no key {on.key!r}; there are {_listed(zones)}"
    known = {zone for zone in zones.values() if zone}
    if on.zone and on.zone not in known:
        return f"on.zone: no key is of the zone {on.zone!r}; there are {_listed(known)}"
    if on.key and on.zone and zones[on.key] != on.zone:
        return f"on: the key {on.key!r} is of the zone {zones[on.key]!r}, not of {on.zone!r}"
    return ""


def _listed(names: set[str] | Mapping[str, str]) -> str:
    return ", ".join(sorted(names)) or "none"
