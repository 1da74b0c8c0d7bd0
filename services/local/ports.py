"""Free ports of this machine for processes that come and go.

They are taken from below the range in which Linux picks ports of outgoing connections (32768 on) and where macOS does
(49152 on), so that a process that is started again finds its port free.
"""

import contextlib
import secrets
import socket

HOST = "127.0.0.1"
_PORT_MIN, _PORT_MAX = 15_000, 32_000
_TRIES_MAX = 100
_given: set[int] = set()
"""What this process gave away: whoever has one may not listen on it yet, or not just now."""


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens now, never the same twice.

    Raises:
        OSError: none of 100 was free.
    """
    for _ in range(_TRIES_MAX):
        port = _PORT_MIN + secrets.randbelow(_PORT_MAX - _PORT_MIN)
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                _given.add(port)
                return port
    raise OSError(f"no free port on {HOST} between {_PORT_MIN} and {_PORT_MAX}")


def free_ports(count: int) -> list[int]:
    """Return this many free ports. Raises OSError."""
    return [free_port() for _ in range(count)]
