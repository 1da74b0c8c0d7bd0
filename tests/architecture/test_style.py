"""Style that nobody has to argue about. Every exception stands here by name, with its reason."""

import ast
from pathlib import PurePosixPath

import pytest

from tests.architecture.house import Source, called_name, calls, sources

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

BANNED_CALLS = {
    "time.time": "wall time comes from libs.runtime.clock",
    "time.time_ns": "wall time comes from libs.runtime.clock",
    "datetime.now": "wall time comes from libs.runtime.clock",
    "datetime.utcnow": "wall time comes from libs.runtime.clock",
    "datetime.datetime.now": "wall time comes from libs.runtime.clock",
    "dt.datetime.now": "wall time comes from libs.runtime.clock",
    "time.sleep": "it stops the event loop",
    "print": "processes write log lines, commands write through rich",
    "logging.getLogger": "lines go through libs.telemetry.logging",
}
BANNED_PREFIXES = {"random.": "chance is seeded and handed in"}
DOORS = {
    ("libs/runtime/clock.py", "time.time_ns"): "the door to time",
    (
        "libs/runtime/service.py",
        "asyncio.create_task",
    ): "the loop's watch, cancelled when the service ends",
    ("libs/telemetry/logging.py", "logging.getLogger"): "the door to logging",
}
"""(module, call) -> why it may."""
RANDOM_DOORS = {
    "services/simulator/chance.py": "the seeded generator of the simulated market",
}
BROAD_EXCEPTS = {
    "libs/runtime/service.py": "the one place where every error becomes an exit status",
    "services/operator/watching.py": "a thread's errors are seen by nobody: handed to the loop, and logged there",
}


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_rooms_are_small(source: Source) -> None:
    """No module over 500 lines, no function over 70."""
    assert source.text.count("\n") <= MODULE_LINES_MAX
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_every_module_states_its_idea(source: Source) -> None:
    """The module docstring is where a reader begins."""
    assert ast.get_docstring(source.tree), f"{source.path} has no docstring"


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_banned_calls_stay_behind_their_doors(source: Source) -> None:
    """Time, chance, printing, tasks: one door each."""
    for call in calls(source):
        name = called_name(call)
        where = f"{source.path}:{call.lineno} {name}"
        if name in BANNED_CALLS and (source.path, name) not in DOORS:
            pytest.fail(f"{where}: {BANNED_CALLS[name]}")
        for prefix, reason in BANNED_PREFIXES.items():
            if name.startswith(prefix) and source.path not in RANDOM_DOORS:
                pytest.fail(f"{where}: {reason}")


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_a_task_outside_a_group_has_an_owner_and_a_name(source: Source) -> None:
    """Someone keeps it and ends it; a task nobody holds may vanish, and its error with it."""
    dropped = {node.value for node in ast.walk(source.tree) if isinstance(node, ast.Expr)}
    for call in calls(source):
        name, where = called_name(call), f"{source.path}:{call.lineno}"
        if name in {"asyncio.create_task", "asyncio.ensure_future"}:
            assert call not in dropped, f"{where}: nobody keeps the task"
        if name == "asyncio.create_task":
            assert any(word.arg == "name" for word in call.keywords), f"{where}: it has no name"


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_broad_excepts_are_one_place_only(source: Source) -> None:
    """An error nobody expected reaches the frame; who cleans up and raises again may catch everything for that."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(
            kind is None
            or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})
            for kind in caught
        )
        if broad and source.path not in BROAD_EXCEPTS:
            last = node.body[-1]
            again = isinstance(last, ast.Raise) and last.exc is None
            assert again, f"{source.path}:{node.lineno} catches everything and goes on"


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_everything_that_can_grow_is_bounded(source: Source) -> None:
    """No queue without maxsize."""
    for call in calls(source):
        if called_name(call).split(".")[-1] in {
            "Queue",
            "PriorityQueue",
            "LifoQueue",
            "SimpleQueue",
        }:
            bounded = call.args or any(word.arg == "maxsize" for word in call.keywords)
            assert bounded, f"{source.path}:{call.lineno}: a queue without maxsize"


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_log_events_are_closed_names(source: Source) -> None:
    """The event of a log line is a literal in lower_snake_case; what varies is a fact."""
    for call in calls(source):
        function = call.func
        if (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id == "log"
            and function.attr in {"debug", "info", "warning", "error", "exception"}
        ):
            event = call.args[0] if call.args else None
            where = f"{source.path}:{call.lineno}"
            assert isinstance(event, ast.Constant), f"{where}: the event is computed"
            name = event.value
            assert isinstance(name, str), where
            assert name.isidentifier(), f"{where}: {name!r} is not a name"
            assert name == name.lower(), f"{where}: {name!r} is not lower case"


SETTINGS = [
    source
    for source in sources()
    if PurePosixPath(source.path).name in {"settings.py", "sections.py"}
    and source.path != "libs/runtime/settings.py"
]


@pytest.mark.parametrize("source", SETTINGS, ids=lambda source: source.path)
def test_every_setting_is_explained_beneath_it(source: Source) -> None:
    """Meaning, unit, default and why stand in a docstring under each field."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for field, below in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                explained = (
                    isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                    and isinstance(below.value.value, str)
                )
                assert explained, f"{source.path}: {node.name}.{field.target.id} is not explained"


def test_test_functions_state_a_behaviour() -> None:
    """Every test has a docstring: what holds, not how it is tested."""
    silent = [
        f"{source.path}:{node.lineno} {node.name}"
        for source in sources("tests")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
