"""Bytes on the wire: times and cursors as the exchange writes them."""

import pytest

from services.simulator.frames import rfc3339_ms
from services.simulator.paging import decode_cursor, encode_cursor


@pytest.mark.parametrize(
    ("millis", "text"),
    [
        (1_781_159_489_957, "2026-06-11T06:31:29.957Z"),
        (1_781_159_489_950, "2026-06-11T06:31:29.95Z"),
        (1_781_159_489_000, "2026-06-11T06:31:29Z"),
    ],
)
def test_fractions_are_trimmed(millis: int, text: str) -> None:
    """Trailing zeros of a fraction are left out, and the point with them."""
    assert rfc3339_ms(millis) == text


def test_cursors_are_opaque_and_garbage_is_the_first_page() -> None:
    """A cursor leads back to its position; anything else is no position at all."""
    assert decode_cursor(encode_cursor(1_000)) == 1_000
    for garbage in ("", "garbage", "%%%", "CgwIuKKp0QYQ-MDV3QISJ0tYTUxC", "cG9zaXRpb249eA"):
        assert decode_cursor(garbage) is None
