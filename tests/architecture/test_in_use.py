"""Nothing stands in a contract with the operator that has no effect: no metric nobody sets, no setting nobody reads."""

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from tests.architecture.house import ROOMS, Source, sources

METRICS = "libs/telemetry/metric"
"""What the paths of the modules that define metrics begin with."""

SECTIONS = "libs/runtime/sections.py"
READ_BY_NAME: dict[str, str] = {}
"""Class.field -> who reads it in a way no look at the text can find."""


def attributes(tree: ast.AST, but: ast.AST | None = None) -> Iterator[str]:
    """Every name that is read as an attribute, also by getattr with a literal; not those inside `but`."""
    if tree is but:
        return
    if isinstance(tree, ast.Attribute) and isinstance(tree.ctx, ast.Load):
        yield tree.attr
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "getattr":
        yield from (str(a.value) for a in tree.args[1:2] if isinstance(a, ast.Constant))
    for below in ast.iter_child_nodes(tree):
        yield from attributes(below, but)


def test_every_metric_is_set_somewhere() -> None:
    """What is defined is used outside its definition; a metric that is always 0 says that all is well."""
    defined = {
        target.attr
        for source in sources(*ROOMS)
        if source.path.startswith(METRICS)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Attribute) and not target.attr.startswith("_")
    } - {"registry"}
    assert {"build_info", "archive_rows_total"} <= defined
    used = {
        name
        for source in sources(*ROOMS)
        if not source.path.startswith(METRICS)
        for name in attributes(source.tree)
    }
    assert defined - used == set()


SETTINGS = [
    (source, node)
    for source in sources(*ROOMS)
    if source.path == SECTIONS or PurePosixPath(source.path).name == "settings.py"
    if source.path != "libs/runtime/settings.py"
    for node in ast.walk(source.tree)
    if isinstance(node, ast.ClassDef)
]


@pytest.mark.parametrize(
    ("source", "section"), SETTINGS, ids=[f"{s.path}:{c.name}" for s, c in SETTINGS]
)
def test_every_setting_is_read_outside_its_class(source: Source, section: ast.ClassDef) -> None:
    """A service's own section is read in that service, what all share anywhere; checking a value is not using it."""
    fields = {
        line.target.id
        for line in section.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    is_shared = source.path == SECTIONS or section.name == "Settings"
    room = "" if is_shared else f"{PurePosixPath(source.path).parent}/"
    read = {
        name
        for other in sources(*ROOMS)
        if other.path.startswith(room)
        for name in attributes(other.tree, section)
    }
    unread = {f"{section.name}.{name}" for name in fields - read}
    assert unread - READ_BY_NAME.keys() == set()
