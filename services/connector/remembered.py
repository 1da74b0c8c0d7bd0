"""The last assignment in a local file, so that a restarted connector captures while its database is away."""

import json
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "assignment.json"


def remember(directory: Path, shard: str, slots: Mapping[str, frozenset[str]]) -> None:
    """Write the slots and their markets; replaces the file in one step.

    Raises:
        OSError: the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"shard": shard, "slots": {s: sorted(t) for s, t in sorted(slots.items())}})
    new = directory / f"{FILE_NAME}.new"
    new.write_text(text)
    new.replace(directory / FILE_NAME)


def recall(directory: Path, shard: str) -> dict[str, frozenset[str]]:
    """Return what was remembered for this shard; nothing when there is no usable file."""
    try:
        document = json.loads((directory / FILE_NAME).read_text())
        if document["shard"] != shard:
            return {}
        return {slot: frozenset(tickers) for slot, tickers in document["slots"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
