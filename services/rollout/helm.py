"""Helm 3 and 4, as far as a rollout asks them: the same words mean the same to both."""

import json
from collections.abc import Sequence
from typing import Final

from services.rollout.errors import AnswerUnreadable, ReleaseNotThere, ToolFailed
from services.rollout.plan import Revision
from services.rollout.tools import Tool

REVISIONS_KEPT: Final = "30"
"""Helm's own ten are gone after a few runs of one rollout, and the revision to go back to with them."""
UPGRADE_S_MAX: Final = 1_800.0
"""Seconds that one upgrade may take: its hooks have a time-out of helm's own."""


class Helm:
    """One release."""

    def __init__(self, tool: Tool, release: str) -> None:
        self._tool = tool
        self._release = release

    async def history(self) -> list[Revision]:
        """Return the revisions that helm remembers.

        Raises:
            ReleaseNotThere: there are none. ToolFailed: as Tool.run.
        """
        try:
            found = await self._tool.json("history", self._release, "--output", "json")
        except ToolFailed as error:
            if "not found" in str(error):
                raise ReleaseNotThere(
                    f"there is no release {self._release}; helm install makes it"
                ) from error
            raise
        try:
            return [
                Revision(
                    int(one["revision"]), str(one["status"]), str(one.get("description") or "")
                )
                for one in found
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise AnswerUnreadable(f"helm history: {error!r}") from error

    async def upgrade(
        self, chart: str, words: Sequence[str], released: Sequence[str] | None, description: str
    ) -> None:
        """Upgrade the release, with these zones released (None: all). Raises ToolFailed."""
        kept = () if "--history-max" in words else ("--history-max", REVISIONS_KEPT)
        await self._tool.run(
            *upgrade_words(self._release, chart, words, released),
            *kept,
            "--description",
            description,
            timeout_s=UPGRADE_S_MAX,
        )


def upgrade_words(
    release: str, chart: str, words: Sequence[str], released: Sequence[str] | None
) -> list[str]:
    """The words of one step's upgrade. The last --set-json wins over files, and null takes the key away."""
    value = json.dumps(None if released is None else list(released), separators=(",", ":"))
    return ["upgrade", release, chart, *words, "--set-json", f"rollout.released={value}"]
