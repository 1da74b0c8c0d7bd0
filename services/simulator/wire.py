"""Actions of a line as websocket bytes: what is written to a connection at once."""

import functools

from services.simulator.line import Action, Close, Ping


@functools.lru_cache(maxsize=1 << 16)
def text_header(length: int) -> bytes:
    """Return the header of an unmasked, final text frame of this payload length."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def wire_bytes(actions: list[Action]) -> bytes:
    """Join actions, each with its header; a reset has no bytes."""
    parts: list[bytes] = []
    for action in actions:
        if type(action) is bytes:
            parts.append(text_header(len(action)))
            parts.append(action)
        elif isinstance(action, Ping):
            parts.append(bytes((0x89, len(action.payload))) + action.payload)
        elif isinstance(action, Close):
            payload = action.code.to_bytes(2, "big") + action.reason.encode()
            parts.append(bytes((0x88, len(payload))) + payload)
    return b"".join(parts)
