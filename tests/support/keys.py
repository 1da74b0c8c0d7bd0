"""A key pair as both sides of a simulated exchange need it."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from libs.exchange.keyfiles import make_key_pair
from services.simulator.settings import KeySettings


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Files of one key pair: `private_key_file` for the client, `settings` for the simulator."""

    key_id: str
    private_key_file: Path
    public_key_file: Path

    @property
    def settings(self) -> KeySettings:
        return KeySettings(key_id=self.key_id, public_key_file=str(self.public_key_file))


def make_key(directory: Path, name: str = "simulator") -> KeyPair:
    """Write a fresh key pair to the directory, under a key id of its own."""
    private, public = make_key_pair(directory, name)
    key_id = str(uuid.uuid5(uuid.NAMESPACE_OID, public.read_text()))
    return KeyPair(key_id, private, public)
