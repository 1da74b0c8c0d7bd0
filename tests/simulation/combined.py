"""Which spans are cut at which gatherers: every combination over a short truth, random ones over longer truths."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from random import Random

from libs.marketdata.units import MILLISECOND
from tests.simulation.heard import KINDS, Cut, Heard, hear
from tests.simulation.published import EPOCH, TICKERS, Truth, random_truth, short_truth
from tests.simulation.united import Finding, judge, judge_alone, unite

GATHERERS = (1, 2, 3)
LAGS = (0, 40 * MILLISECOND, 300 * MILLISECOND)
OWN_CUTS_MAX = 2

SHORT = short_truth()
SPANS = [(i, j) for i in range(len(SHORT) + 1) for j in range(i, len(SHORT) + 1)]
"""Every place to begin and to end: before the first delta, between any two of a millisecond or of two, behind the last."""
COMBINATIONS = list(product((False, True), repeat=len(GATHERERS)))
"""Which gatherers hear a span: all 2^3."""


@cache
def hear_short(gatherer: int, kind: str, span: tuple[int, int] | None) -> Heard:
    """Let a gatherer hear the short truth, with one cut or with none."""
    cuts = [] if span is None else [Cut(kind, *span, TICKERS[0])]
    return hear(gatherer, SHORT, cuts, lag=LAGS[gatherer - 1], batch=1 + gatherer)


def short_cases(rotations: Sequence[int]) -> Iterator[tuple[str, Sequence[Heard]]]:
    """Yield every span under every combination of who hears it; of those who do not, each for another reason.

    Args:
        rotations: which reason the first gatherer has, counted on from the span's own; all six are everything.
    """
    for number, span in enumerate(SPANS):
        for rotation, hears in product(rotations, COMBINATIONS):
            heard, said = [], []
            for gatherer, is_heard in zip(GATHERERS, hears, strict=True):
                kind = KINDS[(number + rotation + gatherer) % len(KINDS)]
                heard.append(hear_short(gatherer, kind, None if is_heard else span))
                said.append("hears" if is_heard else kind)
            yield f"{span} {' '.join(said)}", heard


Span = tuple[int, int]


def _random_span(chance: Random, truth: Truth) -> Span:
    """Draw a span; most are short, so that many begin and end inside one millisecond."""
    start = chance.randint(0, len(truth))
    return start, min(start + chance.choice([0, 1, 2, 5, len(truth) // 4]), len(truth))


def random_cuts(chance: Random, truth: Truth, shared: Sequence[Span]) -> list[Cut]:
    """Draw one gatherer's cuts, which do not overlap: spans of its own, and some that befall others too."""
    spans = [span for span in shared if chance.random() < 0.6]
    spans += [_random_span(chance, truth) for _ in range(chance.randint(0, OWN_CUTS_MAX))]
    found: list[Cut] = []
    for start, end in sorted(spans):
        first = max(start, found[-1].end if found else 0)
        ticker = chance.choice(truth).ticker
        found.append(Cut(chance.choice(KINDS), first, max(first, end), ticker))
    return found


def random_case(
    seed: int, epoch: int = EPOCH, gatherers: Sequence[int] = GATHERERS
) -> tuple[Truth, list[Heard]]:
    """Draw a truth that begins at a time, and what three gatherers of these numbers hear of it."""
    chance = Random(f"union {seed}")
    truth = random_truth(chance, epoch)
    shared = [_random_span(chance, truth) for _ in range(chance.randint(0, 4))]
    heard = [
        hear(gatherer, truth, random_cuts(chance, truth, shared), lag=chance.choice(LAGS),
             batch=chance.choice([1, 3, 20]), chunk=chance.choice([1, 100]))
        for gatherer in gatherers
    ]  # fmt: skip
    return truth, heard


def try_random(seed: int) -> list[Finding]:
    """Unite a random case in any order of arrival; each gatherer is judged alone too, as readers bring its pages."""
    truth, heard = random_case(seed)
    found = [finding for one in heard for finding in judge_alone(truth, one)]
    return found + judge(truth, heard, unite(heard, Random(f"arrival {seed}")))
