"""Which ConfigMaps of former versions may go. Pure.

They are named by their content and kept by helm, so that a held pod never meets another's configuration. The newest of
each kind stay for going back; one that a pod has mounted, or a template that pods are made from names, stays too.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

LABEL: Final = "kalshi-data.io/config"
KEPT: Final = 3


class Map(NamedTuple):
    """A ConfigMap: its name, whose configuration it is (the label), and when it was made (RFC 3339)."""

    name: str
    of: str
    created_at: str


def read_maps(items: Iterable[Mapping[str, Any]]) -> list[Map]:
    """Read what `kubectl get configmaps` lists; those without the label are nobody's business here."""
    found = []
    for item in items:
        meta = item["metadata"]
        of = (meta.get("labels") or {}).get(LABEL)
        if of:
            found.append(Map(meta["name"], of, meta.get("creationTimestamp", "")))
    return found


def may_go(maps: Sequence[Map], used: Collection[str], kept: int = KEPT) -> list[str]:
    """Return the names of those beyond the newest `kept` of their label that nothing uses."""
    of: dict[str, list[Map]] = defaultdict(list)
    for one in maps:
        of[one.of].append(one)
    gone = []
    for group in of.values():
        group.sort(key=lambda one: (one.created_at, one.name), reverse=True)
        gone += [one.name for one in group[kept:] if one.name not in used]
    return sorted(gone)


def used_maps(items: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the ConfigMaps that pods, and workloads that may make pods, mention.

    A ReplicaSet without replicas makes none; a Deployment that is held makes its pods from a former ReplicaSet.
    """
    found: set[str] = set()
    for item in items:
        if item.get("kind") == "ReplicaSet" and not item.get("spec", {}).get("replicas"):
            continue
        found |= set(_mentioned(item.get("spec", {})))
    return found


def _mentioned(spec: Any) -> Iterator[str]:
    """Every ConfigMap that a spec names, wherever: volumes, projected volumes, variables."""
    if isinstance(spec, Mapping):
        for key, value in spec.items():
            if key in ("configMap", "configMapRef", "configMapKeyRef") and isinstance(
                value, Mapping
            ):
                yield str(value.get("name", ""))
            yield from _mentioned(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _mentioned(value)
