"""Whoever is woken by a line of the log, or by an event of production, finds it in the runbook."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.house import ROOMS, sources

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
EVENT_MAKERS = {"EventRow": 0, "record_event": 1}
"""What records an event, and which of its arguments is the kind."""


def _name(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _texts(node: ast.AST) -> Iterator[str]:
    """Every text that an expression may be."""
    yield from (
        n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    )


def _told() -> Iterator[str]:
    for source in sources(*ROOMS):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call):
                continue
            name, place = _name(node), 0
            if name in EVENT_MAKERS:
                place = EVENT_MAKERS[name]
            elif name != "error" or "log" not in ast.unparse(node.func):
                continue
            if len(node.args) > place:
                yield from _texts(node.args[place])


def test_every_error_and_event_is_in_the_runbook() -> None:
    """Names that are logged as errors, and kinds of operational events, each with what to do."""
    told = set(_told())
    assert {"gatherer_quarantined", "spool_refused", "incomplete"} <= told
    written = RUNBOOK.read_text(encoding="utf-8")
    assert {name for name in told if f"`{name}`" not in written} == set()
