"""From the zone's own lifecycle rows to changes of the catalogue. Pure.

Both lifecycle connections write every message, and lanes have no common order: rows are taken by observed_at, and a
row not younger than the market's last one is not applied again. A message carries no full market, so each one also
asks for a look at the market by REST once the exchange's cache can no longer answer with what was before it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from libs.marketdata.capture import is_combo_ticker
from libs.marketdata.rows import LifecycleRow
from libs.store.catalogue import MarketState
from services.registry.catalogue import Rules
from services.registry.listing import ListedMarket
from services.registry.statuses import (
    ACTIVE,
    BEFORE_CLOSE,
    CLOSED,
    INACTIVE,
    INITIALIZED,
    by_clock,
    is_wanted,
)

EVENT_MESSAGES = frozenset({"event_lifecycle", "event_fee_update"})
COMBO_MESSAGES = frozenset({"multivariate_market_lifecycle"})
RAISING = frozenset({"created", "activated", "close_date_updated"})
"""Messages after which a market may be heard that REST, from its cache, still shows as closed or not open."""
DETERMINED, SETTLED = "determined", "finalized"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a page of lifecycle rows says.

    states: markets as they stand after it (new ones included: `new`, which lack a body until REST brings it).
    fetch: markets not known and not described by their message: to be fetched at once, with retries.
    look: markets to look at again later. events: events that changed; the next incremental listing brings them.
    raised: markets that are wanted by a message of this page; lowered: those that are not wanted any more by one.
    """

    states: tuple[MarketState, ...] = ()
    new: frozenset[str] = frozenset()
    fetch: tuple[str, ...] = ()
    look: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    raised: frozenset[str] = frozenset()
    lowered: frozenset[str] = frozenset()


class Ordering:
    """The last applied observed_at of each market, for as long as copies of a message may still come."""

    def __init__(self, kept: int = 600_000_000) -> None:
        self._last: dict[str, int] = {}
        self._kept = kept
        """How long a market's last message is remembered, microseconds (10 min)."""

    def fresh(self, rows: Iterable[LifecycleRow]) -> list[LifecycleRow]:
        """Return the rows that are not older than what was applied, in the order of their time."""
        ordered = sorted(rows, key=lambda row: row.observed_at)
        return [row for row in ordered if row.observed_at >= self._last.get(row.ticker, 0)]

    def remember(self, applied: Iterable[LifecycleRow], now: int) -> None:
        """Note rows, in the order of their time, once they are applied: what failed is to be given again."""
        self._last.update((row.ticker, row.observed_at) for row in applied)
        if len(self._last) > 100_000:
            self._last = {t: at for t, at in self._last.items() if at > now - self._kept}


def hear(
    rows: Iterable[LifecycleRow], known: Mapping[str, MarketState], rules: Rules, now: int
) -> Heard:
    """Apply lifecycle rows, already in order, to what is known of their markets."""
    states: dict[str, MarketState] = {}
    new: set[str] = set()
    fetch: dict[str, None] = {}
    look: set[str] = set()
    events: set[str] = set()
    raised: set[str] = set()
    for row in rows:
        if row.message_type in EVENT_MESSAGES:
            events.add(row.ticker)
            continue
        if _is_combo(row) and not rules.capture.combos:
            continue
        look.add(row.ticker)
        old = states.get(row.ticker) or known.get(row.ticker)
        if old is None:
            old = _announced(row, rules, now)
            if old is None:
                fetch[row.ticker] = None
                continue
            new.add(row.ticker)
            states[row.ticker] = old
        after = _after(old, row, now)
        if after != old:
            states[row.ticker] = after
        if row.event_type in RAISING and after.wanted:
            raised.add(row.ticker)
    changed = tuple(state for state in states.values() if state != known.get(state.ticker))
    lowered = frozenset(state.ticker for state in states.values() if not state.wanted)
    return Heard(
        changed, frozenset(new), tuple(fetch), frozenset(look), frozenset(events),
        frozenset(raised) - lowered, lowered,
    )  # fmt: skip


def _is_combo(row: LifecycleRow) -> bool:
    return row.message_type in COMBO_MESSAGES or is_combo_ticker(row.ticker)


def _after(state: MarketState, row: LifecycleRow, now: int) -> MarketState:
    open_now = state.status in BEFORE_CLOSE
    match row.event_type:
        case "activated" if open_now:
            return state._replace(status=ACTIVE, wanted=state.slot is not None)
        case "deactivated" if open_now:
            return state._replace(status=INACTIVE)
        case "close_date_updated" if row.close_at is not None:
            reopened = state.status == CLOSED and row.close_at > now
            status = ACTIVE if reopened else state.status
            return state._replace(
                close_at=row.close_at,
                status=by_clock(status, state.open_at, row.close_at, now),
                wanted=state.slot is not None if reopened else state.wanted,
            )
        case "determined":
            return state._replace(status=DETERMINED, wanted=False)
        case "settled":
            return state._replace(status=SETTLED, wanted=False)
        case _:
            return state


def _announced(row: LifecycleRow, rules: Rules, now: int) -> MarketState | None:
    """Build a market from its `created` message, if that names its event and the filter can judge it."""
    if row.event_type != "created":
        return None
    event = _message(row.body).get("additional_metadata", {}).get("event_ticker")
    if not isinstance(event, str) or not event:
        return None
    series = rules.series(event)
    if rules.capture.needs_category and series not in rules.categories:
        return None
    status = by_clock(INITIALIZED, row.open_at, row.close_at, now)
    market = ListedMarket(
        ticker=row.ticker, event_ticker=event, status=status, is_combo=is_combo_ticker(row.ticker),
        open_at=row.open_at, close_at=row.close_at, created_at=row.observed_at, updated_at=0, content_hash=0, body="",
    )  # fmt: skip
    passes = rules.passes(market, series)
    return MarketState(
        ticker=row.ticker,
        event_ticker=event,
        series_ticker=series,
        status=status,
        is_combo=market.is_combo,
        wanted=passes and is_wanted(status, row.open_at, now, rules.ahead),
        slot=rules.slot(row.ticker, None) if passes else None,
        open_at=row.open_at,
        close_at=row.close_at,
        created_at=row.observed_at,
        updated_at=0,
        content_hash=0,
    )


def _message(body: str) -> dict[str, Any]:
    """Read the stored message; its fields stand at the top or, with its envelope, under `msg`."""
    try:
        message = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(message, dict):
        return {}
    inner = message.get("msg", message)
    return inner if isinstance(inner, dict) else {}
