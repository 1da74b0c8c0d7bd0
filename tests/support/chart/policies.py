"""What NetworkPolicies mean: whether one end point may open a connection to another, as a cluster that enforces them decides.

Both sides must allow it: the policies that select the source for egress, and those that select the target for ingress. A
side that no policy selects allows everything.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.support.chart.render import NAMESPACE, Object


class Point(NamedTuple):
    """One end of a connection.

    name: its own, and for people. address: IP. labels: of the pod; None for what is no pod. ports: container ports by name.
    """

    name: str
    address: str
    labels: Mapping[str, str] | None = None
    namespace: str = NAMESPACE
    namespace_labels: Mapping[str, str] = {}
    ports: Mapping[str, int] = {}


class Network:
    """The policies of a release, asked for one connection after another."""

    def __init__(self, policies: Sequence[Object]) -> None:
        self._policies = [policy["spec"] for policy in policies]
        self._chosen: dict[tuple[str, str], list[Object] | None] = {}

    def allows(self, source: Point, target: Point, port: int, protocol: str = "TCP") -> bool:
        """Whether source may reach this port of target."""
        return self._lets("Egress", source, target, target, port, protocol) and self._lets(
            "Ingress", target, source, target, port, protocol
        )

    def _lets(
        self, kind: str, own: Point, other: Point, target: Point, port: int, protocol: str
    ) -> bool:
        """One direction: `own` is whom the policies select, `other` the peer, `target` whose port it is."""
        rules = self._rules(kind, own)
        peers = "to" if kind == "Egress" else "from"
        return rules is None or any(
            _is_port(rule.get("ports"), target, port, protocol) and _is_peer(rule.get(peers), other)
            for rule in rules
        )

    def _rules(self, kind: str, own: Point) -> list[Object] | None:
        """The rules of all policies that select this point; None where none does, and all is allowed."""
        if own.labels is None or own.namespace != NAMESPACE:
            return None
        if (kind, own.name) not in self._chosen:
            selecting = [
                spec
                for spec in self._policies
                if kind in spec["policyTypes"] and matches(spec["podSelector"], own.labels)
            ]
            rules = [rule for spec in selecting for rule in spec.get(kind.lower()) or []]
            self._chosen[kind, own.name] = rules if selecting else None
        return self._chosen[kind, own.name]


def _is_peer(peers: Iterable[Object] | None, other: Point) -> bool:
    if not peers:
        return True
    return any(_is_one(peer, other) for peer in peers)


def _is_one(peer: Object, other: Point) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        address = ipaddress.ip_address(other.address)
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(cidr) for cidr in block.get("except") or []
        )
    if other.labels is None:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], other.namespace_labels):
            return False
    elif other.namespace != NAMESPACE:
        return False
    return matches(peer.get("podSelector") or {}, other.labels)


def _is_port(ports: Iterable[Object] | None, target: Point, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for one in ports:
        if one.get("protocol", "TCP") != protocol:
            continue
        if "port" not in one:
            return True
        named = one["port"]
        first = target.ports.get(named, -1) if isinstance(named, str) else int(named)
        if first <= port <= one.get("endPort", first):
            return True
    return False


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects these labels."""
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for term in selector.get("matchExpressions") or []:
        value, values = labels.get(term["key"]), term.get("values") or []
        verdict = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[term["operator"]]
        if not verdict:
            return False
    return True
