"""Key pairs, and the one question asked of a signed request: did the holder of this key id sign this, just now?

The signed text is timestamp + METHOD + path without query string; RSA-PSS with SHA-256, salt as long as the digest.
"""

import base64
import binascii
import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from libs.runtime.errors import ConfigInvalid
from services.simulator.settings import KeySettings

KEY_HEADER = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER = "KALSHI-ACCESS-SIGNATURE"
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)


class KeyFileInvalid(ConfigInvalid):
    """A public key file cannot be read or holds no RSA public key; name another under simulator.keys."""


class Refusal(enum.Enum):
    """Why a signature is not accepted; the value is the recorded 401 body of the exchange."""

    MISSING = (
        b'{"error":{"code":"signature_is_missing_from_headers",'
        b'"message":"signature is missing from headers"}}'
    )
    EXPIRED = b'{"error":{"code":"header_timestamp_expired","message":"header timestamp expired"}}'
    UNKNOWN_KEY = (
        b'{"error":{"code":"authentication_error","message":"authentication_error",'
        b'"details":"NOT_FOUND"}}'
    )
    BAD_SIGNATURE = (
        b'{"error":{"code":"authentication_error","message":"authentication_error",'
        b'"details":"INCORRECT_API_KEY_SIGNATURE"}}'
    )


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
    """Write a fresh RSA key pair to DIRECTORY: NAME.pem (private, PKCS#8, mode 600) and NAME.pub.pem."""
    directory.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = directory / f"{name}.pem"
    public = directory / f"{name}.pub.pem"
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    encoded = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public.write_bytes(encoded)
    key_id = str(uuid.uuid5(uuid.NAMESPACE_OID, encoded.decode()))
    return KeyPair(key_id=key_id, private_key_file=private, public_key_file=public)


class KeyRing:
    """The public keys of the settings, by key id."""

    def __init__(self, keys: Mapping[str, rsa.RSAPublicKey], skew_ms_max: int) -> None:
        self._keys = dict(keys)
        self._skew_ms_max = skew_ms_max

    @classmethod
    def load(cls, keys: tuple[KeySettings, ...], skew_ms_max: int) -> "KeyRing":
        """Read every public key file.

        Raises:
            KeyFileInvalid: files are missing or hold no RSA public key; all of them are named.
        """
        loaded: dict[str, rsa.RSAPublicKey] = {}
        faults: list[str] = []
        for key in keys:
            try:
                loaded[key.key_id] = _load_public(key.public_key_file)
            except (OSError, ValueError) as error:
                faults.append(f"simulator.keys: {key.key_id}: {key.public_key_file}: {error}")
        if faults:
            raise KeyFileInvalid(faults)
        return cls(loaded, skew_ms_max)

    def refuse(
        self, headers: Mapping[str, str], method: str, path: str, now_ms: int
    ) -> Refusal | None:
        """Return why the request is not signed by a known key, or None when it is."""
        signature = headers.get(SIGNATURE_HEADER, "")
        timestamp = headers.get(TIMESTAMP_HEADER, "")
        if not signature or not timestamp:
            return Refusal.MISSING
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 20):
            return Refusal.EXPIRED
        if abs(now_ms - int(timestamp)) > self._skew_ms_max:
            return Refusal.EXPIRED
        key = self._keys.get(headers.get(KEY_HEADER, ""))
        if key is None:
            return Refusal.UNKNOWN_KEY
        try:
            raw = base64.b64decode(signature, validate=True)
            key.verify(raw, f"{timestamp}{method}{path}".encode(), _PSS, hashes.SHA256())
        except (InvalidSignature, binascii.Error):
            return Refusal.BAD_SIGNATURE
        return None


def is_signed(headers: Mapping[str, str]) -> bool:
    """Say whether any header of a signature is present."""
    return any(name in headers for name in (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))


def _load_public(name: str) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key(Path(name).read_bytes())
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("not an RSA public key")  # noqa: TRY004 - the file is wrong, not the call
    return key
