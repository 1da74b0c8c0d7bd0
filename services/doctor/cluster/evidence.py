"""What the checks of one release share: whom they ask, from where, and what earlier ones found for later ones."""

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from libs.runtime.clock import Clock
from services.doctor.cluster.judge_clocks import Sample
from services.doctor.cluster.settings import ClusterSettings

Document = Mapping[str, Any]
INSIDE: Final = "KUBERNETES_SERVICE_HOST"
"""Every pod has it."""


@dataclass(frozen=True, slots=True)
class Archived:
    """What production knows of the archive: objects, and microseconds since the epoch of the newest (None: none yet)."""

    objects: int
    newest_at: int | None


@dataclass(slots=True)
class Evidence:
    """One examination.

    Attributes:
        kubeconfig: file for the Kubernetes API; empty: the pod's account, or what kubectl takes.
        is_inside: whether this runs in a pod, where every name must resolve.
        samples: what clocks said. documents: /health by base address, of services that answered.
        live: slots that are live by zone, of databases that answered. archived: None until production was asked.
    """

    settings: ClusterSettings
    clock: Clock
    kubeconfig: str = ""
    is_inside: bool = field(default_factory=lambda: INSIDE in os.environ)
    samples: list[Sample] = field(default_factory=list)
    documents: dict[str, Document] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    archived: Archived | None = None

    async def has_address(self, host: str) -> bool:
        """Whether the name resolves here; a folder of a Unix socket is an address by itself."""
        if host.startswith("/"):
            return True
        try:
            await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return False
        return True


def host_and_port(base: str) -> tuple[str, int]:
    """Take a base address of a health server apart.

    Raises:
        ValueError: it is not of the form http://HOST:PORT.
    """
    parts = urlsplit(base)
    if parts.scheme != "http" or not parts.hostname or parts.port is None or parts.path.strip("/"):
        raise ValueError(f"{base}: expected http://HOST:PORT")
    return parts.hostname, parts.port
