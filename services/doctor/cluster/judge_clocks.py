"""How far the clocks of databases and services are from ours, with bounds that are proven. Pure.

What a clock showed as t, asked for at our time a and read at our time b, was shown between a and b: our clock minus the
other one is at least a - t and at most b - t. Only what is certain counts: a slow answer is no wrong clock.
"""

from collections.abc import Sequence
from typing import NamedTuple

from libs.marketdata.units import SECOND
from services.doctor.findings import Finding, fail, ok, skipped, warn

CHECK = "clocks"
WARN_S, FAIL_S = 1.0, 5.0
"""Leases last 6 s and the exchange takes signatures up to 5 s off; a second is far above what synchronised clocks differ by."""
ADVICE = "synchronise the nodes' clocks (chrony; on EKS the Amazon Time Sync Service): leases and signatures are judged by them"


class Sample(NamedTuple):
    """What one clock showed, and when we asked and read it; microseconds."""

    name: str
    asked_at: int
    shown: int
    read_at: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Our clock minus this one: at least, at most."""
        return self.asked_at - self.shown, self.read_at - self.shown

    @property
    def certain(self) -> int:
        """By how much it differs from ours at least, microseconds; never below 0."""
        low, high = self.bounds
        return max(low, -high, 0)


def judge_clocks(samples: Sequence[Sample]) -> Finding:
    """Say it of the one that is furthest off."""
    if not samples:
        return skipped(CHECK, "needs: an answer of a database or service")
    worst = max(samples, key=lambda sample: sample.certain)
    if worst.certain <= WARN_S * SECOND:
        widest = max(high - low for low, high in (sample.bounds for sample in samples))
        return ok(
            CHECK,
            f"{len(samples)} clocks agree with ours (to within {WARN_S:g} s; the slowest answer took {widest / SECOND:.2f} s)",
        )
    side = "behind" if worst.bounds[0] > 0 else "ahead of"
    off = [sample.name for sample in samples if sample.certain > WARN_S * SECOND]
    found = f"{worst.name} is at least {worst.certain / SECOND:.1f} s {side} this machine; off: {', '.join(off)}"
    judge = fail if worst.certain > FAIL_S * SECOND else warn
    return judge(CHECK, found, ADVICE)
