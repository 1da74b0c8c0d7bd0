"""The verdict of data-model.md section 7 over a union: what production holds against the truth and against each stream.

- extra: more of a fact than was published
- sum: another multiplicity than the largest any one stream delivered
- whole: a millisecond that one stream heard whole is not there as it was published
- unsound: missing though somebody claims to have listened
- loose: a gap in a gatherer's claims further from its cuts than margins explain, or of a market it heard all along
- order: a delta stands at another place of its millisecond than it says
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, Protocol

from libs.marketdata.listening import Claim, Span, claims, holes, union
from libs.marketdata.rows import DeltaRow
from libs.marketdata.units import SECOND
from tests.simulation.heard import Heard, Stream, Told
from tests.simulation.merged import Production, merge_pages, pages_of
from tests.simulation.published import Content, Truth, milliseconds

BEFORE = 4 * SECOND
"""A gap may begin this long before its cut: the last frame is up to two seconds old, as is the end margin."""
AFTER = 3_500_000
"""... and end this long after it: the next frame comes within two seconds, the start margin is one."""

Finding = tuple[str, str]


class Tables(Protocol):
    """Production, as far as a verdict looks at it."""

    def rows(self, table: str) -> list[Any]:
        """Every row of a table."""


def unite(heard: Sequence[Heard], chance: Random, *, in_order: bool = False) -> Production:
    """Merge what gatherers committed: pages in any order, some twice; in_order: as readers bring them, once."""
    pages = [page for no, one in enumerate(heard, 1) for page in pages_of(no, one.batches, chance)]
    if not in_order:
        chance.shuffle(pages)
    return merge_pages(pages, chance, trouble=0.0 if in_order else 0.2)


def judge(truth: Truth, heard: Sequence[Heard], production: Tables) -> list[Finding]:
    """Return everything that is wrong; nothing when the union is what it must be."""
    rows: list[DeltaRow] = production.rows("orderbook_deltas")
    stored = Counter((r.ticker, r.exchange_ts, r.side, r.price, r.size_delta) for r in rows)
    published = Counter(delta.content for delta in truth)
    told = [_by_stream(one.told) for one in heard]
    findings = [("extra", str(content)) for content in stored - published]
    expected = _largest(truth, told)
    findings += [
        ("sum", f"{content}: {stored[content]}, the largest of any stream is {expected[content]}")
        for content in stored.keys() | expected.keys()
        if stored[content] != expected[content]
    ]
    findings += _judge_whole(truth, told, stored, published)
    findings += _judge_claims(production, published - stored)
    findings += _judge_order(truth, rows)
    return findings


def _by_stream(told: Sequence[Told]) -> dict[Stream, list[Told]]:
    found: dict[Stream, list[Told]] = defaultdict(list)
    for one in told:
        found[one.stream].append(one)
    return found


def _largest(truth: Truth, told: Sequence[Mapping[Stream, Sequence[Told]]]) -> Counter[Content]:
    """Count each fact by what single streams delivered: numbered in the stream, stored, the union of the numbers."""
    numbers: dict[Content, set[int]] = defaultdict(set)
    for streams in told:
        for stream in streams.values():
            seen: Counter[Content] = Counter()
            for one in stream:
                content = truth[one.index].content
                seen[content] += 1
                if one.stored:
                    numbers[content].add(seen[content])
    return Counter({content: len(found) for content, found in numbers.items()})


def _judge_whole(
    truth: Truth,
    told: Sequence[Mapping[Stream, Sequence[Told]]],
    stored: Counter[Content],
    published: Counter[Content],
) -> list[Finding]:
    groups = milliseconds(truth)
    whole = set()
    for streams in told:
        for stream, found in streams.items():
            there = {one.index for one in found if one.stored}
            whole |= {
                key for key, of in groups.items() if key[0] == stream.ticker and there >= set(of)
            }
    return [
        ("whole", f"{content}: {stored[content]} of {count}")
        for content, count in published.items()
        if content[:2] in whole and stored[content] != count
    ]


def _judge_claims(production: Tables, missing: Counter[Content]) -> list[Finding]:
    told = _claims_of(production)
    return [
        ("unsound", f"{content}: {count} missing, {claim}")
        for content, count in missing.items()
        for claim in told
        if claim.ticker == content[0] and claim.from_ts <= content[1] < claim.to_ts
    ]


def _claims_of(production: Tables) -> list[Claim]:
    names = ("listen_ranges", "listen_opened", "listen_closed")
    return claims(*(production.rows(name) for name in names))


def _judge_order(truth: Truth, rows: Collection[DeltaRow]) -> list[Finding]:
    groups = milliseconds(truth)
    found = []
    for row in rows:
        there = groups.get((row.ticker, row.exchange_ts), [])
        if row.pos is not None:
            here = [truth[index] for index in there[row.pos - 1 : row.pos]]
            same = [
                (d.side, d.price, d.size) == (row.side, row.price, row.size_delta) for d in here
            ]
            if same != [True]:
                found.append(
                    ("order", f"{row.ticker} {row.exchange_ts}: place {row.pos} of {len(there)}")
                )
    return found


def judge_alone(truth: Truth, heard: Heard) -> list[Finding]:
    """Judge one gatherer as if it were the only one, and hold its gaps against its cuts."""
    alone = unite([heard], Random(0), in_order=True)
    allowed = union((start - BEFORE, end + AFTER) for start, end in heard.blows)
    found = judge(truth, [heard], alone)
    told = _claims_of(alone)
    for ticker in sorted({delta.ticker for delta in truth}):
        spans: list[Span] = [(c.from_ts, c.to_ts) for c in told if c.ticker == ticker]
        for low, high in holes(spans, heard.start + AFTER, heard.end - BEFORE):
            beyond = holes(allowed, low, high)
            found += [("loose", f"{ticker} {low}..{high}: {heard.blows}")] if beyond else []
    return found
