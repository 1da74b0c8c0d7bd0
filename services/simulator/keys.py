"""The one question asked of a signed request: did the holder of this key id sign this, just now?

The signed text is timestamp + METHOD + path without query string. An RSA key signs it with PSS over SHA-256, salt as
long as the digest; an Ed25519 key signs the text itself.
"""

import base64
import binascii
import enum
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from libs.exchange.signing import KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from libs.runtime.errors import ConfigInvalid
from services.simulator.settings import KeySettings

# Said again, from the exchange's documentation, not taken from libs/exchange/signing: a judge that verified with the
# signer's own rule would accept the signer's mistakes.
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)

PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class KeyFileInvalid(ConfigInvalid):
    """A public key file cannot be read or holds no public key; name another under simulator.keys."""


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


class KeyRing:
    """The public keys of the settings, by key id.

    Args:
        skew_ms_max: largest age or lead of a signed timestamp, milliseconds.
    """

    def __init__(self, keys: Mapping[str, PublicKey], skew_ms_max: int) -> None:
        self._keys = dict(keys)
        self._skew_ms_max = skew_ms_max

    @classmethod
    def load(cls, keys: tuple[KeySettings, ...], skew_ms_max: int) -> "KeyRing":
        """Read every public key file, RSA or Ed25519.

        Raises:
            KeyFileInvalid: files are missing or hold no public key of these kinds; all of them are named.
        """
        loaded: dict[str, PublicKey] = {}
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
            _verify(key, raw, f"{timestamp}{method}{path}".encode())
        except (InvalidSignature, binascii.Error):
            return Refusal.BAD_SIGNATURE
        return None


def is_signed(headers: Mapping[str, str]) -> bool:
    """Say whether any header of a signature is present."""
    return any(name in headers for name in (KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))


def _verify(key: PublicKey, signature: bytes, text: bytes) -> None:
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, text)
    else:
        key.verify(signature, text, _PSS, hashes.SHA256())


def _load_public(name: str) -> PublicKey:
    """Read a public key, or the public part of a private one.

    Raises:
        OSError, ValueError: the file cannot be read, or holds neither.
    """
    pem = Path(name).read_bytes()
    key: object
    if b"PRIVATE KEY-----" in pem:
        try:
            key = serialization.load_pem_private_key(pem, password=None).public_key()
        except TypeError as error:
            raise ValueError("a private key with a passphrase") from error
    else:
        key = serialization.load_pem_public_key(pem)
    if not isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        # The file is wrong, not the call.
        raise ValueError("neither an RSA nor an Ed25519 public key")  # noqa: TRY004
    return key
