"""From coverage and lags to answers: facts by who delivered them, quantiles of lag. Pure."""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from libs.store.coverage_records import FactCount, Judged, LagCount
from services.coverage.heard import ChannelHeard

K = TypeVar("K", bound=Hashable)


class Quantiles(NamedTuple):
    """Of rows' lags, seconds; at most 4.5 % off but for the longest, which is exact."""

    rows: int
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """What production has recorded of a span."""

    facts: Sequence[FactCount]
    lags: Sequence[LagCount]
    judged: Sequence[Judged]
    channels: Sequence[ChannelHeard]


def lag_quantiles(counts: Iterable[LagCount], key: Callable[[LagCount], K]) -> dict[K, Quantiles]:
    """Return the quantiles of the counts by what `key` says of them."""
    groups: dict[K, list[LagCount]] = defaultdict(list)
    for count in counts:
        groups[key(count)].append(count)
    return {name: _quantiles(found) for name, found in groups.items()}


def _quantiles(counts: Sequence[LagCount]) -> Quantiles:
    rows, longest = sum(count.rows for count in counts), max(count.max_s for count in counts)
    ordered = sorted((count.lag_s, count.rows) for count in counts)

    def at(share: float) -> float:
        wanted, below = math.ceil(share * rows), 0
        for lag, number in ordered:
            below += number
            if below >= wanted:
                return min(lag, longest)
        return longest

    return Quantiles(rows, at(0.5), at(0.9), at(0.99), longest)


def facts_by_set(facts: Iterable[FactCount]) -> dict[tuple[int, ...], dict[str, tuple[int, int]]]:
    """Return by set of gatherers and table: facts, and late copies; the largest sets first."""
    sums: dict[tuple[int, ...], dict[str, tuple[int, int]]] = defaultdict(dict)
    for count in facts:
        before = sums[count.gatherers].get(count.table_name, (0, 0))
        sums[count.gatherers][count.table_name] = (
            before[0] + count.facts,
            before[1] + count.late_facts,
        )
    told = {who: tables for who, tables in sums.items() if any(map(any, tables.values()))}
    return dict(sorted(told.items(), key=lambda entry: (-len(entry[0]), entry[0])))


def lowest(judged: Iterable[Judged]) -> dict[str, tuple[int, int, int, Judged]]:
    """Return by table: minutes judged, their facts, those all delivered, and the minute of the lowest share."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for row in judged:
        groups[row.table_name].append(row)
    return {
        name: (
            len(rows),
            sum(row.facts for row in rows),
            sum(row.by_all for row in rows),
            min(rows, key=lambda row: (row.by_all / row.facts, row.minute)),
        )
        for name, rows in groups.items()
    }
