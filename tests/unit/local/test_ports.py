"""Ports of processes that come and go."""

import socket

import pytest

from services.local import ports


def test_ports_lie_below_those_of_outgoing_connections_and_none_is_given_twice() -> None:
    """A process that is away for a moment finds its port free: no connection and no other process got it meanwhile."""
    found = ports.free_ports(200)
    assert len(set(found)) == 200
    assert min(found) > 1024 and max(found) < 32_768


def test_a_port_on_which_somebody_listens_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over; when no other is left, that is an error."""
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        busy = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_PORT_MIN", busy)
        monkeypatch.setattr(ports, "_PORT_MAX", busy + 1)
        with pytest.raises(OSError, match=r"no free port on 127\.0\.0\.1"):
            ports.free_port()
    assert ports.free_port() == busy
