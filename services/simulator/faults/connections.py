"""What faults do to whole connections: end them, break them, let them die without a word, or not let them in."""

from typing import TYPE_CHECKING

from libs.marketdata.units import MILLISECOND
from services.simulator import answers
from services.simulator.answers import Answer
from services.simulator.faults import menu
from services.simulator.faults.active import Active
from services.simulator.line import Close, Line, Reset

if TYPE_CHECKING:
    from services.simulator.simulation import Simulation

WORDS = {
    429: ("too_many_requests", "too many requests"),
    500: ("internal_server_error", "internal server error"),
    502: ("bad_gateway", "bad gateway"),
    503: ("service_unavailable", "service unavailable"),
    504: ("gateway_timeout", "gateway timeout"),
}
TOO_MANY_CONNECTIONS = answers.nested(429, *WORDS[429])
"""What one websocket too many is answered: our inference, the exchange's own answer is not known."""


def hit(active: Active, line: Line, simulation: "Simulation", now: int) -> None:
    """Do to a line what this fault does to connections, if it does anything to them."""
    fault = active.fault
    if isinstance(fault, menu.HalfOpen):
        _note(active, line, now)
        line.die()
        return
    ending = _ending(fault)
    if ending is not None:
        _note(active, line, now)
        simulation.close(line, ending, now)


def refusal(active: Active) -> Answer:
    """Return what a new connection is answered while this fault lasts."""
    fault = active.fault
    if isinstance(fault, menu.AuthExpiry):
        return answers.nested(401, "authentication_error", "authentication_error", "NOT_FOUND")
    if not isinstance(fault, menu.Refuse):
        return answers.page(503)
    if fault.body == "html":
        return answers.page(fault.status)
    return (
        answers.nothing(fault.status)
        if fault.body == "empty"
        else answers.nested(fault.status, *WORDS[fault.status])
    )


def _ending(fault: menu.Fault) -> Close | Reset | None:
    if isinstance(fault, menu.Close):
        return Close(fault.code)
    if isinstance(fault, menu.AuthExpiry):
        return Close(1008)
    if isinstance(fault, menu.Maintenance):
        return Close(1001)
    return Reset() if isinstance(fault, menu.Reset) else None


def _note(active: Active, line: Line, now: int) -> None:
    active.hit(line.number)
    line.session.set_time(now // MILLISECOND)
    line.session.note("fault", phase="hit", fault=active.fault.kind, number=active.number)
