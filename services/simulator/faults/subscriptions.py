"""What faults do to subscriptions: skip numbers, end them, make them say what nobody asked for."""

from libs.marketdata.units import MILLISECOND
from services.simulator.faults import menu
from services.simulator.faults.active import Active
from services.simulator.line import Line
from services.simulator.subscription import BOOKS, TICKERS, Subscription

_TERMINAL = {10: "channel_error", 25: "overflow"}
"""Error code that ends a subscription -> kind of the journal line that says so."""


def hit(active: Active, line: Line, now: int) -> None:
    """Do to a line's subscriptions what this fault does to them, if it does anything."""
    fault, session = active.fault, line.session
    session.set_time(now // MILLISECOND)
    if isinstance(fault, menu.Error) and fault.code not in _TERMINAL:
        session.refusals.extend([(fault.code, active.number)] * (fault.count_max or 1))
        return
    for subscription in list(session.subscriptions.values()):
        if fault.on.takes_channel(subscription.channel):
            _hit(active, subscription)


def _hit(active: Active, subscription: Subscription) -> None:
    fault = active.fault
    first = subscription.seq + 1
    if isinstance(fault, menu.SeqGap) and subscription.channel != TICKERS:
        subscription.seq += fault.by
        _note(active, subscription, seq=first, seq_to=subscription.seq)
    elif isinstance(fault, menu.UnknownType):
        body = b'{"market_ticker":"KXNOBODY-KNOWS","note":"a type nobody knows"}'
        for _ in range(fault.count):
            if subscription.channel == TICKERS:
                subscription.send_unnumbered(fault.name, body)
            else:
                subscription.send(fault.name, body)
        _note(active, subscription, seq=first, seq_to=subscription.seq, type=fault.name)
    elif isinstance(fault, menu.SnapshotStorm) and subscription.channel == BOOKS:
        for _ in range(fault.rounds):
            for ticker in list(subscription.tickers or ()):
                subscription.session.send_snapshot(subscription, ticker)
        _note(active, subscription, seq=first, seq_to=subscription.seq)
    elif isinstance(fault, menu.Error):
        subscription.session.fail(subscription, fault.code, _TERMINAL[fault.code])
        _note(active, subscription, seq=subscription.seq, code=fault.code)


def _note(active: Active, subscription: Subscription, **facts: object) -> None:
    session = subscription.session
    active.hit(session.number)
    session.note(
        "fault", phase="hit", fault=active.fault.kind, number=active.number, sid=subscription.sid,
        channel=subscription.channel, **facts,
    )  # fmt: skip
