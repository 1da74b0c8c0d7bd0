"""The list of known fields against recordings of the real exchange: what it really sends is no news."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.exchange.wire import MESSAGE_TYPES
from services.doctor.known_fields import BODIES, unknown_fields

RECORDED = Path(__file__).parents[3] / ".." / "shared" / "kalshi" / "recorded"


def frames(path: Path) -> Iterator[dict[str, Any]]:
    """Every frame the exchange sent in a recording."""
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        frame = entry.get("frame", entry)
        if isinstance(frame, str):
            frame = json.loads(frame)
        if isinstance(frame, dict) and "type" in frame:
            yield frame


def test_every_type_that_is_decoded_has_its_fields() -> None:
    """The list and the decoder know the same messages."""
    assert BODIES.keys() == MESSAGE_TYPES


@pytest.mark.parametrize(
    "name", ["ws-prod-samples-2026-08-20", "ws-demo-samples-2026-08-17a", "ws-demo-samples-2026-08-17b"]
)  # fmt: skip
def test_real_frames_have_no_unknown_field(name: str) -> None:
    """Production and demo, recorded in August 2026."""
    path = RECORDED / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip("no recordings beside the repository")
    found = list(frames(path))
    assert len(found) > 20
    assert {field for frame in found for field in unknown_fields(frame)} == set()


def test_what_is_not_listed_is_found_wherever_it_stands() -> None:
    """Envelope, body, each part of a list, metadata; a type nobody knows is not taken apart."""
    message = {"type": "ok", "new": 1, "msg": [{"channel": "trade", "sid": 1, "lag": 2}]}
    assert list(unknown_fields(message)) == ["ok.new", "ok.msg.lag"]
    assert list(unknown_fields({"type": "weather", "new": 1})) == []
    assert list(unknown_fields({"type": ["ok"], "new": 1})) == []
