"""What a scenario measured, against what it must be; and one line for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.cluster.referee import Case, Verdict


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: what it is, its value and its bound in words, and whether it holds."""

    what: str
    value: str
    bound: str
    holds: bool


def equal(what: str, value: object, wanted: object) -> Figure:
    """A figure that must have one value."""
    return Figure(what, str(value), str(wanted), value == wanted)


def at_least(what: str, value: float, least: float, unit: str = "") -> Figure:
    """A figure that must not be smaller."""
    return Figure(what, f"{value:g}{unit}", f">= {least:g}{unit}", value >= least)


def at_most(what: str, value: float, most: float, unit: str = "") -> Figure:
    """A figure that must not be larger."""
    return Figure(what, f"{value:.1f}{unit}", f"<= {most:g}{unit}", value <= most)


def of_verdict(verdict: Verdict, case: Case) -> list[Figure]:
    """The verdict's own: nothing lost that somebody claims, nothing invented, no gap where there is to be none."""
    reasons = "; ".join(verdict.reasons)[:300]
    return [
        at_least("facts judged", verdict.sum("truth"), 1),
        equal("missing although somebody listened", verdict.sum("unsound"), 0),
        equal("extra", verdict.sum("extra"), 0),
        Figure("verdict", reasons or "holds", "holds", verdict.holds),
        *(
            Figure(f"gaps of {who}", f"{verdict.gaps(who)} {verdict.widest(who)}".strip(), "0", verdict.gaps(who) == 0)
            for who in case.no_gap
        ),
    ]  # fmt: skip


def failures(figures: Sequence[Figure]) -> list[str]:
    """One line for each figure that does not hold."""
    return [f"{f.what}: {f.value}, wanted {f.bound}" for f in figures if not f.holds]
