"""How far a full listing is: a million markets take minutes of the read budget, and somebody may be watching."""

from typing import Any, Final

from libs.marketdata.units import SECOND
from libs.telemetry.logging import get_logger

log = get_logger(__name__)

TELL_EVERY: Final = 15 * SECOND
"""Time between two lines of the log, microseconds."""


class Progress:
    """What of a full listing is done; nothing while none goes on."""

    def __init__(self) -> None:
        self._part = ""
        self._pages = 0
        self._objects = 0
        self._began_at = 0
        self._told_at = 0

    def facts(self) -> dict[str, Any] | None:
        """Say in /health what is being listed; None while nothing is."""
        if not self._part:
            return None
        return {
            "part": self._part,
            "pages": self._pages,
            "objects": self._objects,
            "since": self._began_at,
        }

    def begin(self, now: int) -> None:
        """Note that a full listing begins."""
        self._pages = self._objects = 0
        self._began_at = self._told_at = now

    def enter(self, part: str) -> None:
        """Name what is listed next."""
        self._part = part

    def count(self, objects: int, now: int) -> None:
        """Count a page, and say now and then in the log how far the listing is."""
        self._pages += 1
        self._objects += objects
        if self._part and now - self._told_at >= TELL_EVERY:
            self._told_at = now
            log.info(
                "catalogue_progress", part=self._part, pages=self._pages, objects=self._objects,
                seconds=round((now - self._began_at) / SECOND, 1),
            )  # fmt: skip

    def end(self) -> None:
        """Note that no full listing goes on."""
        self._part = ""
