"""What is shown while checks run, where somebody looks, and what is not: lines of libraries."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

Running = Callable[[Sequence[str]], None]
"""Told the names of what is not finished, whenever that changes."""


@contextmanager
def without_log_lines() -> Iterator[None]:
    """What libraries would log, such as a key file that others can read, is said by the findings."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def waiting_shown(out: Console, asking: str, *, is_json: bool) -> Iterator[Running]:
    """Show what is still waited for on a terminal; nothing to a pipe, and nothing beside JSON."""
    if is_json or not out.is_terminal:
        yield lambda _names: None
        return
    with out.status(asking) as status:
        yield lambda names: status.update(f"waiting for: {', '.join(names)}")
