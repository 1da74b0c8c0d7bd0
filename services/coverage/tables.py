"""Tables of the two commands: what is longest or most stands first, and what is left out is counted."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.table import Table

from libs.marketdata.listening import union
from libs.store.coverage_records import Cause
from services.coverage.heard import ChannelHeard
from services.coverage.question import iso, seconds
from services.coverage.show import Names

ROWS_MAX = 40
"""Rows of one table; --json has them all."""
SUBJECTS_MAX = 12
"""Markets up to which each claim has a row of its own."""


def make_table(title: str, *headings: str) -> Table:
    """Return an empty table; a heading that begins with > is of a right-aligned column."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if heading.startswith(">") else "left",
            overflow="fold",
        )
    return table


def percent(share: float | None, places: int = 4) -> str:
    """Write a share so that almost all is not all."""
    if share is None:
        return "-"
    text = f"{share:.{places}%}"
    return text if share == 1 or not text.startswith("100") else "<100%"


def claims_table(heard: ChannelHeard, names: Names) -> Table:
    """Who listened, from when to when: each connection's claim, or by gatherer where there are many markets."""
    if len({claim.ticker for claim in heard.claims}) > SUBJECTS_MAX:
        return _claims_by_gatherer(heard, names)
    table = make_table(
        f"{heard.channel}: who listened",
        "gatherer",
        "market",
        "connection",
        "from",
        "to",
        ">for",
        "ended",
    )
    for claim in heard.claims[:ROWS_MAX]:
        table.add_row(
            names.of(claim.gatherer), claim.ticker or "all", str(claim.connection), iso(claim.from_ts),
            iso(claim.to_ts), seconds(claim.to_ts - claim.from_ts), claim.ended or "",
        )  # fmt: skip
    _rest(table, len(heard.claims))
    return table


def _claims_by_gatherer(heard: ChannelHeard, names: Names) -> Table:
    table = make_table(
        f"{heard.channel}: who listened", "gatherer", ">markets", ">connections", "first", "last",
        ">some market not heard for",
    )  # fmt: skip
    claims = defaultdict(list)
    for claim in heard.claims:
        claims[claim.gatherer].append(claim)
    for lane in heard.lanes:
        found = claims[lane.gatherer] if lane.gatherer is not None else list(heard.claims)
        table.add_row(
            names.of(lane.gatherer), f"{lane.subjects:,}", f"{len({c.connection for c in found}):,}",
            iso(min(c.from_ts for c in found)) if found else "-",
            iso(max(c.to_ts for c in found)) if found else "-",
            seconds(lane.missed),
        )  # fmt: skip
    return table


def unheard_table(heard: ChannelHeard, names: Names) -> Table:
    """What nobody heard, longest first, with what each gatherer recorded of it."""
    total = sum(end - start for start, end in union((g.from_ts, g.to_ts) for g in heard.unheard))
    table = make_table(
        f"{heard.channel}: what nobody heard, {seconds(total)} in which some market was unheard",
        "market", "from", "to", ">for", "causes",
    )  # fmt: skip
    for gap in heard.unheard[:ROWS_MAX]:
        causes = ", ".join(_told(gap.causes, names)) or "none recorded"
        table.add_row(
            gap.ticker or "all", iso(gap.from_ts), iso(gap.to_ts), seconds(gap.length), causes
        )
    _rest(table, len(heard.unheard))
    return table


def _told(causes: Iterable[Cause], names: Names) -> Iterable[str]:
    """Write causes of one gatherer and reason once: their details, what was lost."""
    groups = defaultdict(list)
    for cause in causes:
        groups[f"{names.of(cause.gatherer)} {cause.reason}"].append(cause)
    for text, found in groups.items():
        details = ", ".join(dict.fromkeys(cause.detail for cause in found if cause.detail))
        lost = sum(cause.rows_lost or 0 for cause in found)
        yield f"{text}{f' ({details})' if details else ''}{f', {lost:,} rows lost' if lost else ''}"


def causes_table(heard: ChannelHeard, names: Names) -> Table:
    """What gatherers recorded, whether or not another one heard it: by reason, most first."""
    table = make_table(
        f"{heard.channel}: recorded causes (others may have heard meanwhile)",
        "gatherer", "reason", ">rows", ">slots", ">markets", "first", "last", ">facts lost",
    )  # fmt: skip
    groups = defaultdict(list)
    for cause in heard.causes:
        groups[cause.gatherer, cause.reason].append(cause)
    ordered = sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    for (gatherer, reason), found in ordered[:ROWS_MAX]:
        table.add_row(
            names.of(gatherer), reason, f"{len(found):,}", f"{len({c.slot for c in found}):,}",
            f"{len({c.ticker for c in found if c.ticker}):,}", iso(min(c.from_ts for c in found)),
            iso(max(c.to_ts for c in found)), f"{sum(c.rows_lost or 0 for c in found):,}",
        )  # fmt: skip
    _rest(table, len(ordered))
    return table


def shares_table(channels: Sequence[ChannelHeard], names: Names) -> Table:
    """Share listened of each gatherer and of all together, by channel."""
    told = [heard for heard in channels if heard.first is not None]
    gatherers = list(dict.fromkeys(lane.gatherer for heard in told for lane in heard.lanes))
    table = make_table(
        "Share listened, of the time from each market's first to last claim",
        "channel", ">markets", *(f">{names.of(gatherer)}" for gatherer in gatherers),
    )  # fmt: skip
    for heard in told:
        shares = {lane.gatherer: lane for lane in heard.lanes}
        whole = shares[None].subjects if heard.claims[0].ticker else "all"
        table.add_row(
            heard.channel,
            f"{whole:,}" if isinstance(whole, int) else whole,
            *(percent(shares[g].share) if g in shares else "-" for g in gatherers),
        )
    return table


def _rest(table: Table, count: int) -> None:
    if count > ROWS_MAX:
        cells = [f"... and {count - ROWS_MAX:,} more (--json)"] + [""] * (len(table.columns) - 1)
        table.add_row(*cells)
