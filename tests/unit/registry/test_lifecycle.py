"""Lifecycle rows of the zone applied to the catalogue."""

from libs.marketdata.capture import CaptureFilter
from services.registry.lifecycle import Heard, Ordering, hear
from tests.unit.registry.factories import NOW, SECOND, heard, rules, state

KNOWN = {"KXA-26-T1": state()}


def created(**changes: object) -> dict[str, object]:
    """The body of a created message that names its event."""
    return {"event_type": "created", "additional_metadata": {"event_ticker": "KXA-26"}, **changes}


def test_created_is_placed_from_the_message_alone() -> None:
    """A created market that names its event needs no REST answer to get its slot and be wanted."""
    row = heard("created", "KXA-26-T9", open_at=NOW + 60 * SECOND, body=created())
    result = hear([row], {}, rules(), NOW)
    (new,) = result.states
    assert result.new == {"KXA-26-T9"}
    assert (new.event_ticker, new.series_ticker, new.status) == ("KXA-26", "KXA", "initialized")
    assert (new.wanted, new.slot) == (True, state("KXA-26-T9").slot)
    assert (new.created_at, new.open_at, new.updated_at) == (NOW, NOW + 60 * SECOND, 0)
    assert result.look == {"KXA-26-T9"}


def test_created_with_its_envelope_is_read_too() -> None:
    """The stored body may be the whole frame."""
    row = heard("created", "KXA-26-T9", body={"type": "market_lifecycle_v2", "msg": created()})
    assert hear([row], {}, rules(), NOW).new == {"KXA-26-T9"}


def test_what_the_message_does_not_tell_is_fetched() -> None:
    """Without an event, with a category the filter must know, or of an unknown market: ask by REST at once."""
    capture = CaptureFilter(category_include=("Sports",))
    assert hear([heard("created")], {}, rules(), NOW).fetch == ("KXA-26-T1",)
    asked = hear([heard("created", body=created())], {}, rules(capture=capture), NOW)
    assert asked.fetch == ("KXA-26-T1",)
    assert hear([heard("activated"), heard("determined")], {}, rules(), NOW).fetch == ("KXA-26-T1",)
    broken = heard("created")._replace(body="[1")
    assert hear([broken], {}, rules(), NOW).fetch == ("KXA-26-T1",)


def test_created_of_an_excluded_market_is_not_wanted() -> None:
    """The filter holds for announced markets as for listed ones."""
    row = heard("created", body=created())
    (new,) = hear([row], {}, rules(capture=CaptureFilter(event_exclude=("KXA*",))), NOW).states
    assert (new.slot, new.wanted) == (None, False)


def test_statuses_follow_the_messages() -> None:
    """Deactivated, activated, determined, settled; each asks for a later look by REST."""
    result = hear([heard("deactivated")], KNOWN, rules(), NOW)
    assert [(s.status, s.wanted) for s in result.states] == [("inactive", True)]
    assert result.look == {"KXA-26-T1"}
    back = hear([heard("deactivated"), heard("activated")], KNOWN, rules(), NOW)
    assert back.states == ()
    for event, status in (("determined", "determined"), ("settled", "finalized")):
        (ended,) = hear([heard(event)], KNOWN, rules(), NOW).states
        assert (ended.status, ended.wanted) == (status, False)
    over = {"KXA-26-T1": state(status="finalized", wanted=False)}
    assert hear([heard("activated"), heard("deactivated")], over, rules(), NOW).states == ()


def test_activated_begins_to_listen_to_a_waiting_market() -> None:
    """A market far from its scheduled opening is heard as soon as it is activated."""
    waiting = {"KXA-26-T1": state(status="initialized", wanted=False)}
    (now_open,) = hear([heard("activated")], waiting, rules(), NOW).states
    assert (now_open.status, now_open.wanted) == ("active", True)


def test_close_date_moves_and_may_reopen() -> None:
    """A new close time is taken; one in the future reopens what only the clock had closed."""
    later = NOW + 99 * SECOND
    (moved,) = hear([heard("close_date_updated", close_at=later)], KNOWN, rules(), NOW).states
    assert (moved.close_at, moved.status) == (later, "active")
    closed = {"KXA-26-T1": state(status="closed", wanted=False)}
    (reopened,) = hear([heard("close_date_updated", close_at=later)], closed, rules(), NOW).states
    assert (reopened.status, reopened.wanted) == ("active", True)
    (early,) = hear([heard("close_date_updated", close_at=NOW)], KNOWN, rules(), NOW).states
    assert (early.status, early.wanted) == ("closed", True)


def test_combos_that_were_not_chosen_are_passed_over() -> None:
    """Neither catalogued nor looked at, by ticker or by channel; by choice they are markets like others."""
    rows = [
        heard("created", "KXMVE-1-A", body=created()),
        heard("activated", "KXMVE-1-B"),
        heard("created", "KXOTHER-1", message_type="multivariate_market_lifecycle"),
    ]
    assert hear(rows, {}, rules(), NOW) == Heard()
    chosen = hear(rows, {}, rules(capture=CaptureFilter(combos=True)), NOW)
    assert chosen.look == {"KXMVE-1-A", "KXMVE-1-B", "KXOTHER-1"}
    assert chosen.new == {"KXMVE-1-A"}


def test_what_a_message_made_wanted_is_named() -> None:
    """Opened, reopened or announced, also when it was wanted before; not what ended, paused or is left out."""
    waiting = {"KXA-26-T1": state(status="initialized", wanted=False)}
    closed = {"KXA-26-T1": state(status="closed", close_at=NOW - 1)}
    later = heard("close_date_updated", close_at=NOW + SECOND)
    assert hear([heard("activated")], waiting, rules(), NOW).raised == {"KXA-26-T1"}
    assert hear([later], closed, rules(), NOW).raised == {"KXA-26-T1"}
    assert hear([heard("activated")], KNOWN, rules(), NOW).raised == {"KXA-26-T1"}
    assert hear([heard("deactivated")], KNOWN, rules(), NOW).raised == frozenset()
    ended = hear([heard("activated"), heard("determined")], KNOWN, rules(), NOW)
    assert not ended.raised
    assert ended.lowered == {"KXA-26-T1"}
    left_out = {"KXA-26-T1": state(slot=None, wanted=False)}
    assert hear([heard("activated")], left_out, rules(), NOW).raised == frozenset()


def test_event_messages_ask_for_the_event() -> None:
    """event_lifecycle and event_fee_update name an event, not a market."""
    row = heard("event_lifecycle", "KXA-26", message_type="event_lifecycle")
    result = hear([row], {}, rules(), NOW)
    assert result.events == {"KXA-26"}
    assert not result.look
    assert not result.fetch


def test_unknown_messages_only_ask_for_a_look() -> None:
    """metadata_updated and words of next year change no state here; REST brings the new body."""
    result = hear([heard("metadata_updated"), heard("a_new_word")], KNOWN, rules(), NOW)
    assert result.states == ()
    assert result.look == {"KXA-26-T1"}


def test_copies_of_the_second_connection_do_not_turn_time_back() -> None:
    """Rows are applied by observed_at; a delayed copy of an older message is dropped, an equal one is harmless."""
    ordering = Ordering()
    first, second = heard("activated", at=NOW), heard("deactivated", at=NOW + 5)
    assert ordering.fresh([second, first]) == [first, second]
    ordering.remember([first, second], NOW)
    copy = heard("activated", at=NOW + 1)
    assert ordering.fresh([copy]) == []
    assert ordering.fresh([second]) == [second]


def test_what_is_remembered_of_order_is_bounded() -> None:
    """Far more markets than may be remembered: old ones are forgotten, recent ones kept."""
    ordering = Ordering(kept=10)
    ordering.remember((heard("activated", f"T{n}", at=n) for n in range(100_001)), 100_001)
    assert len(ordering._last) <= 11
