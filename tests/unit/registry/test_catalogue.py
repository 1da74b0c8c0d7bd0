"""What changes when a listing is compared with the catalogue."""

from libs.marketdata.capture import CaptureFilter
from libs.store.catalogue import CatalogueWrite, ObjectState
from services.registry.catalogue import advance_by_clock, diff_markets, diff_objects, retire
from services.registry.listing import read_event, read_series
from services.registry.slots import slot_name
from tests.unit.registry.factories import NOW, SECOND, listed, rules, state


def test_a_new_market_is_written_with_slot_and_version() -> None:
    """A market not known gets its slot, is wanted, and has one version row with the exchange's update time."""
    market = listed()
    changes = diff_markets([market], {}, rules(), NOW, is_first_listing=True)
    ((written, body),) = changes.write.markets
    assert written == state()
    assert body == market.body
    (version,) = changes.versions
    assert version.updated_at == market.updated_at
    assert (version.received_at, version.level, version.ticker) == (NOW, "market", market.ticker)
    assert changes.gaps == ()


def test_an_equal_market_changes_nothing() -> None:
    """The same listing a second time writes no row at all; nor does one page that repeats a market."""
    known = {"KXA-26-T1": state()}
    assert diff_markets([listed()], known, rules(), NOW).is_empty
    twice = diff_markets([listed(), listed()], {}, rules(), NOW, is_first_listing=True)
    assert (len(twice.versions), len(twice.write.markets)) == (1, 1)


def test_a_changed_field_is_one_version() -> None:
    """Exactly one version row for a changed body; a moved update time alone moves only the state."""
    known = {"KXA-26-T1": state()}
    changed = diff_markets(
        [listed(title="u", updated_time="2026-11-02T00:00:00Z")], known, rules(), NOW
    )
    assert len(changed.versions) == 1
    touched = diff_markets([listed(updated_time="2026-11-02T00:00:00Z")], known, rules(), NOW)
    assert touched.versions == ()
    assert [s.updated_at > known["KXA-26-T1"].updated_at for s in touched.write.states] == [True]


def test_stale_answers_change_nothing() -> None:
    """An older update time, or the same with an earlier status, comes from a cache."""
    known = {"KXA-26-T1": state(status="closed", wanted=True)}
    older = listed(title="old", updated_time="2026-10-30T00:00:00Z")
    for market in (older, listed(status="active", title="other")):
        changes = diff_markets([market], known, rules(), NOW)
        assert (changes.is_empty, changes.stale) == (True, 1)


def test_a_close_by_the_exchange_ends_wanted_but_keeps_the_slot() -> None:
    """`closed` from REST: not wanted any more; one version row."""
    changes = diff_markets([listed(status="closed")], {"KXA-26-T1": state()}, rules(), NOW)
    (written,) = changes.market_states
    assert (written.status, written.wanted, written.slot) == ("closed", False, state().slot)
    assert len(changes.versions) == 1


def test_a_market_that_ended_before_we_knew_it_has_its_version() -> None:
    """Other zones may have captured it: one version row and a row of the catalogue, never wanted, and no gap."""
    for status in ("closed", "determined", "finalized"):
        changes = diff_markets([listed(status=status)], {}, rules(), NOW)
        (written,) = changes.market_states
        assert (written.status, written.wanted, written.slot) == (status, False, state().slot)
        assert [version.ticker for version in changes.versions] == ["KXA-26-T1"]
        assert changes.gaps == ()
    capture = CaptureFilter(series_exclude=("KXA",))
    assert diff_markets([listed(status="closed")], {}, rules(capture=capture), NOW).is_empty


def test_a_combo_that_was_not_chosen_is_not_catalogued() -> None:
    """By its ticker or its collection; chosen ones are; one that is known from other days is judged."""
    for market in (listed("KXMVE-1-A"), listed(mve_collection_ticker="KXMVE-1")):
        assert diff_markets([market], {}, rules(), NOW).is_empty
        chosen = rules(capture=CaptureFilter(combos=True))
        assert diff_markets([market], {}, chosen, NOW).market_states[0].wanted
        known = {market.ticker: state(market.ticker)}
        (written,) = diff_markets([market], known, rules(), NOW).market_states
        assert (written.wanted, written.slot) == (False, None)


def test_an_answer_from_before_a_message_ends_no_subscription() -> None:
    """The exchange's cache may show a market as it was before it opened or reopened: asked again, nothing written."""
    known = {"KXA-26-T1": state(updated_at=0, content_hash=0)}
    far = "2027-01-01T00:00:00Z"
    for old in (listed(status="closed"), listed(status="initialized", open_time=far)):
        early = diff_markets([old], known, rules(), NOW, raised={"KXA-26-T1"})
        assert (early.is_empty, early.early, early.stale) == (True, ("KXA-26-T1",), 1)
        assert not diff_markets([old], known, rules(), NOW).market_states[0].wanted
    kept = diff_markets([listed(title="u")], known, rules(), NOW, raised={"KXA-26-T1"})
    assert (len(kept.versions), kept.early) == (1, ())
    left_out = rules(capture=CaptureFilter(series_exclude=("KXA",)))
    (written,) = diff_markets([listed()], known, left_out, NOW, raised=known).market_states
    assert not written.wanted


def test_an_excluded_market_is_known_but_has_no_slot() -> None:
    """The catalogue keeps what the filter leaves out, without slot, not wanted, and it is never a gap."""
    changes = diff_markets(
        [listed()], {}, rules(capture=CaptureFilter(series_exclude=("KXA",))), NOW
    )
    (written,) = changes.market_states
    assert (written.slot, written.wanted, changes.gaps) == (None, False, ())


def test_series_and_category_come_from_the_event() -> None:
    """The event's own series decides, not the ticker's first part; the category is the series'."""
    capture = CaptureFilter(category_include=("Sports",))
    events = {"KXA-26": "KXOTHER"}
    sports = rules(capture=capture, series_by_event=events, categories={"KXOTHER": "Sports"})
    (written,) = diff_markets([listed()], {}, sports, NOW).market_states
    assert (written.series_ticker, written.wanted) == ("KXOTHER", True)
    other = rules(capture=capture, series_by_event=events, categories={"KXOTHER": "Crypto"})
    assert not diff_markets([listed()], {}, other, NOW).market_states[0].wanted


def test_a_market_found_late_leaves_its_cause() -> None:
    """Created more than 10 s before the listing showed it, and open: a not_subscribed row for the span."""
    (gap,) = diff_markets([listed()], {}, rules(), NOW).gaps
    assert (gap.reason, gap.channel, gap.ticker) == (
        "not_subscribed",
        "orderbook_delta",
        "KXA-26-T1",
    )
    assert (gap.from_ts, gap.to_ts, gap.slot) == (state().created_at, NOW, state().slot)
    young = diff_markets([listed()], {}, rules(), (state().created_at or 0) + 9 * SECOND)
    assert young.gaps == ()
    unopened = listed(status="initialized", open_time="2026-11-30T00:00:00Z")
    assert diff_markets([unopened], {}, rules(), NOW).gaps == ()
    assert diff_markets([listed()], {"KXA-26-T1": state()}, rules(), NOW).gaps == ()


def test_another_number_of_slots_places_anew() -> None:
    """A stored slot stays while the number of slots does; else it is computed for the new number."""
    odd = state(slot="orderbook/99")
    known = {"KXA-26-T1": odd}
    assert diff_markets([listed()], known, rules(), NOW).is_empty
    (moved,) = diff_markets([listed()], known, rules(slots=24, keeps_slots=False), NOW).write.states
    assert moved.slot == slot_name("KXA-26-T1", 24)


def test_versions_of_series_and_events() -> None:
    """New and changed objects are one version each, equal ones none, older ones stale."""
    series = read_series({"ticker": "KXA", "last_updated_ts": "2026-11-01T00:00:00Z"}, NOW)
    changes = diff_objects([series, series], {}, NOW)
    assert [v.level for v in changes.versions] == ["series"]
    known = {"KXA": changes.write.series[0][0]}
    assert diff_objects([series], known, NOW).is_empty
    newer = ObjectState("KXA", "", 1, series.updated_at + 1)
    assert diff_objects([series], {"KXA": newer}, NOW).stale == 1
    event = read_event({"event_ticker": "KXA-26", "series_ticker": "KXA"}, NOW)
    changes = diff_objects([event], {}, NOW)
    assert changes.write.events[0][0].series_ticker == "KXA"
    assert changes.write.series == ()


def test_the_clock_opens_closes_and_begins_to_listen() -> None:
    """Scheduled transitions: subscribed ahead of the opening, active at it, closed at the close but still heard."""
    opens = NOW + 3600 * SECOND
    waiting = state(status="initialized", wanted=False, open_at=opens, close_at=opens + SECOND)
    assert advance_by_clock([waiting], rules(), NOW - 1) == CatalogueWrite()
    (ahead,) = advance_by_clock([waiting], rules(), NOW).states
    assert (ahead.status, ahead.wanted) == ("initialized", True)
    (opened,) = advance_by_clock([ahead], rules(), opens).states
    assert (opened.status, opened.wanted) == ("active", True)
    (closed,) = advance_by_clock([opened], rules(), opens + SECOND).states
    assert (closed.status, closed.wanted) == ("closed", True)
    assert advance_by_clock([closed], rules(), opens + 9 * SECOND) == CatalogueWrite()


def test_the_clock_never_wants_what_the_filter_left_out() -> None:
    """A market without slot opens, but is not heard."""
    left_out = state(status="initialized", wanted=False, slot=None)
    (opened,) = advance_by_clock([left_out], rules(), NOW).states
    assert (opened.status, opened.wanted) == ("active", False)


def test_a_market_the_exchange_forgot_is_retired() -> None:
    """Not listed and not known by name: not wanted any more."""
    (gone,) = retire([state()], "removed").states
    assert (gone.status, gone.wanted) == ("removed", False)
    assert retire([gone], "removed") == CatalogueWrite()


def test_a_market_that_was_taken_for_gone_is_wanted_again_when_it_is_listed() -> None:
    """The exchange changed nothing of it meanwhile; the cause of the hole is a row, its beginning the streams tell."""
    (gone,) = retire([state()], "removed").states
    changes = diff_markets([listed()], {gone.ticker: gone}, rules(), NOW)
    assert changes.market_states == [state()]
    (row,) = changes.gaps
    assert (row.reason, row.ticker, row.slot) == ("not_subscribed", gone.ticker, gone.slot)
    assert (row.from_ts, row.to_ts) == (None, NOW)
    over = diff_markets([listed(status="finalized")], {gone.ticker: gone}, rules(), NOW)
    assert ([s.status for s in over.market_states], over.gaps) == (["finalized"], ())
    older = gone._replace(updated_at=gone.updated_at + 1)
    assert diff_markets([listed()], {gone.ticker: older}, rules(), NOW).stale == 1
