"""The files of the house, parsed once, for the tests beside this module."""

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ROOMS = ("libs", "services")


class Source(NamedTuple):
    """One Python module: its path from the root, its text and its tree."""

    path: str
    text: str
    tree: ast.Module


@functools.cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every module below these folders, tests of the house by default not among them."""
    found = []
    for folder in folders or ROOMS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found.append(Source(path.relative_to(ROOT).as_posix(), text, ast.parse(text)))
    return tuple(found)


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """What git would carry: tracked files that exist, or every file where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = [name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        ours = [*ROOMS, "tests", "config", "migrations"]
        names = [p.relative_to(ROOT).as_posix() for f in ours for p in (ROOT / f).rglob("*.*")]
    return tuple(ROOT / name for name in names if (ROOT / name).is_file())


def called_name(call: ast.Call) -> str:
    """The dotted name of what is called: `time.time`, `asyncio.Queue`, `print`; empty for anything computed."""
    return dotted(call.func)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a chain of names, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return ""


def calls(source: Source) -> Iterator[ast.Call]:
    """Every call of a module."""
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))
