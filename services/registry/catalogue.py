"""From what the exchange lists and what we know to what changes: catalogue, versions, late markets. Pure.

A listed object that is older than what we know is stale (REST answers come through a cache of 15 s, and the listing's
pages are no snapshot) and changes nothing. A version row is written exactly when the body's hash differs.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from libs.marketdata.capture import CaptureFilter, series_of
from libs.marketdata.rows import GapRow, MarketVersionRow
from libs.marketdata.units import SECOND
from libs.store.catalogue import CatalogueWrite, MarketState, ObjectState
from services.registry.listing import Listed, ListedMarket
from services.registry.slots import slot_name
from services.registry.statuses import REMOVED, by_clock, is_before_close, is_wanted, rank

LATE_AFTER = 10 * SECOND
"""A market created longer ago than this, open, and not known, was found late: microseconds."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How markets become slots: the filter, the number of order-book slots, and how early to subscribe (microseconds).

    categories: series -> category, series_by_event: event -> series, as far as they are known. keeps_slots: a slot
    stored with a market was computed for this number of slots.
    """

    capture: CaptureFilter
    slots: int
    ahead: int
    categories: Mapping[str, str]
    series_by_event: Mapping[str, str]
    keeps_slots: bool = True

    def slot(self, ticker: str, old: MarketState | None) -> str:
        """Return the market's slot: the stored one, or computed."""
        if self.keeps_slots and old is not None and old.slot is not None:
            return old.slot
        return slot_name(ticker, self.slots)

    def series(self, event_ticker: str) -> str:
        """Return an event's series, guessed from its ticker where the event is not known."""
        return self.series_by_event.get(event_ticker) or series_of(event_ticker)

    def passes(self, market: ListedMarket, series: str) -> bool:
        """Ask the capture filter about a market."""
        return self.capture.wants(
            market.ticker,
            event_ticker=market.event_ticker,
            series_ticker=series,
            category=self.categories.get(series),
            is_combo=market.is_combo,
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """What to write: the catalogue's part, version rows, cause rows, and how many answers were stale.

    early: markets whose answer may be older than the message that made them wanted; ask again.
    """

    write: CatalogueWrite = field(default_factory=CatalogueWrite)
    versions: tuple[MarketVersionRow, ...] = ()
    gaps: tuple[GapRow, ...] = ()
    stale: int = 0
    early: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to write."""
        return self.write.is_empty and not self.versions and not self.gaps

    @property
    def market_states(self) -> list[MarketState]:
        """Every market state that is written."""
        return [*(state for state, _ in self.write.markets), *self.write.states]


def diff_objects(
    listed: Iterable[Listed], known: Mapping[str, ObjectState], received_at: int
) -> Changes:
    """Compare listed series or events (one level) with the catalogue."""
    written: dict[str, tuple[ObjectState, str]] = {}
    versions: list[MarketVersionRow] = []
    stale = 0
    for item in listed:
        old = written[item.ticker][0] if item.ticker in written else known.get(item.ticker)
        if old is not None and old.content_hash == item.content_hash:
            continue
        if old is not None and item.updated_at < old.updated_at:
            stale += 1
            continue
        state = ObjectState(item.ticker, item.parent, item.content_hash, item.updated_at)
        written[item.ticker] = (state, item.body)
        versions.append(
            MarketVersionRow(
                item.updated_at, received_at, item.content_hash, item.level, item.ticker, item.body
            )
        )
    level_is_series = any(version.level == "series" for version in versions)
    pairs = tuple(written.values())
    write = CatalogueWrite(series=pairs) if level_is_series else CatalogueWrite(events=pairs)
    return Changes(write, tuple(versions), stale=stale)


@dataclass(slots=True)
class _Collected:
    markets: dict[str, tuple[MarketState, str]] = field(default_factory=dict)
    states: dict[str, MarketState] = field(default_factory=dict)
    versions: list[MarketVersionRow] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)
    stale: int = 0
    early: list[str] = field(default_factory=list)


def diff_markets(
    listed: Iterable[ListedMarket],
    known: Mapping[str, MarketState],
    rules: Rules,
    now: int,
    *,
    is_first_listing: bool = False,
    raised: Container[str] = (),
    recent: Container[str] = (),
) -> Changes:
    """Compare listed markets with the catalogue.

    Args:
        is_first_listing: the catalogue was never complete, so that no market can be late.
        recent: markets of which a message told so short a time before the listing was asked for that the exchange's
            cache may not know it; an answer without anything new does not contradict the message.
        raised: markets that a message made wanted so short a time before the listing was asked for that the exchange's
            cache may not know it; what would end their subscription is left for a later look.
    """
    found = _Collected()
    for market in listed:
        if market.ticker not in found.markets:
            old = known.get(market.ticker)
            if old is not None and market.ticker in recent and _is_nothing_new(market, old):
                found.stale += 1
                continue
            _judge(found, market, old, rules, now, raised)
            if old is not None and old.status == REMOVED:
                found.gaps.extend(_returned(found, market.ticker, now))
            elif not is_first_listing and old is None:
                found.gaps.extend(_late(found.markets.get(market.ticker), market, now))
    write = CatalogueWrite(
        markets=tuple(found.markets.values()), states=tuple(found.states.values())
    )
    return Changes(write, tuple(found.versions), tuple(found.gaps), found.stale, tuple(found.early))


def _judge(
    found: _Collected,
    market: ListedMarket,
    old: MarketState | None,
    rules: Rules,
    now: int,
    raised: Container[str],
) -> None:
    if old is not None and _is_stale(market, old):
        found.stale += 1
        return
    new = _state_of(market, old, rules, now)
    if old is None and _is_left_out(market, new, rules):
        return
    # A market without slot is left out by the filter: no message speaks for that.
    if old is not None and old.wanted and not new.wanted and new.slot and market.ticker in raised:
        found.stale += 1
        found.early.append(market.ticker)
        return
    if old is None or old.content_hash != new.content_hash:
        found.markets[market.ticker] = (new, market.body)
        found.versions.append(
            MarketVersionRow(
                market.updated_at, now, market.content_hash, "market", market.ticker, market.body
            )
        )
    elif old != new:
        found.states[market.ticker] = new


def _is_left_out(market: ListedMarket, new: MarketState, rules: Rules) -> bool:
    """Decide whether a market not known is none of our business: a combo unless chosen, or excluded and over.

    One that passes and was over before we knew it is kept: what the others captured of it has a meaning.
    """
    if market.is_combo and not rules.capture.combos:
        return True
    return new.slot is None and not is_before_close(market.status)


def _is_nothing_new(market: ListedMarket, old: MarketState) -> bool:
    return market.content_hash == old.content_hash


def _is_stale(market: ListedMarket, old: MarketState) -> bool:
    if market.updated_at != old.updated_at:
        return market.updated_at < old.updated_at
    # That it is removed was our conclusion from the exchange's silence: a word of the exchange ends it.
    return old.status != REMOVED and rank(market.status) < rank(old.status)


def _state_of(market: ListedMarket, old: MarketState | None, rules: Rules, now: int) -> MarketState:
    series = rules.series(market.event_ticker)
    passes = rules.passes(market, series)
    return MarketState(
        ticker=market.ticker,
        event_ticker=market.event_ticker,
        series_ticker=series,
        status=by_clock(market.status, market.open_at, market.close_at, now),
        is_combo=market.is_combo,
        wanted=passes and is_wanted(market.status, market.open_at, now, rules.ahead),
        slot=rules.slot(market.ticker, old) if passes else None,
        open_at=market.open_at,
        close_at=market.close_at,
        created_at=market.created_at,
        updated_at=market.updated_at,
        content_hash=market.content_hash,
    )


def _late(
    written: tuple[MarketState, str] | None, market: ListedMarket, now: int
) -> Iterable[GapRow]:
    """Name the cause for a market that was open before we knew it."""
    if written is None or market.created_at is None or now - market.created_at <= LATE_AFTER:
        return
    state = written[0]
    if not state.wanted or state.slot is None or state.status == "initialized":
        return
    yield _unsubscribed(
        state, market.created_at, now, "created before the registry saw it; found by listing"
    )


def _returned(found: _Collected, ticker: str, now: int) -> Iterable[GapRow]:
    """Name the cause for a market that was taken for gone: from when on it was not heard, its streams tell."""
    state = found.markets[ticker][0] if ticker in found.markets else found.states.get(ticker)
    if state is not None and state.wanted:
        yield _unsubscribed(state, None, now, "the exchange did not list it for a while")


def _unsubscribed(state: MarketState, from_ts: int | None, now: int, detail: str) -> GapRow:
    return GapRow(
        received_at=now, row_no=0, channel="orderbook_delta", slot=state.slot or "",
        reason="not_subscribed", detail=detail, ticker=state.ticker, from_ts=from_ts, to_ts=now,
        received_from=None, received_to=now, seq_from=None, seq_to=None, rows_lost=None,
        connection=None, sid=None,
    )  # fmt: skip


def advance_by_clock(states: Iterable[MarketState], rules: Rules, now: int) -> CatalogueWrite:
    """Open and close markets whose time has come; `wanted` rises by the clock, but never falls."""
    changed = []
    for state in states:
        opened = is_wanted(state.status, state.open_at, now, rules.ahead)
        new = state._replace(
            status=by_clock(state.status, state.open_at, state.close_at, now),
            wanted=state.wanted or (opened and state.slot is not None),
        )
        if new != state:
            changed.append(new)
    return CatalogueWrite(states=tuple(changed))


def place(states: Iterable[MarketState], rules: Rules) -> CatalogueWrite:
    """Give markets the slot that is theirs by the present number of slots."""
    placed = (state._replace(slot=slot_name(state.ticker, rules.slots)) for state in states)
    return CatalogueWrite(states=tuple(placed))


def retire(states: Iterable[MarketState], status: str) -> CatalogueWrite:
    """Mark markets that the exchange does not list any more: not wanted, of that status."""
    return CatalogueWrite(
        states=tuple(
            state._replace(status=status, wanted=False)
            for state in states
            if state.wanted or state.status != status
        )
    )
