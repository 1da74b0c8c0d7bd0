"""Signing requests: key id, time and a signature over time + METHOD + path without its query.

RSA keys sign with PSS over SHA-256, salt as long as the digest; Ed25519 keys sign the text itself. The private key
never leaves this module and no secret is sent.
"""

import base64
import binascii
import functools
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from libs.exchange.errors import AuthRejected
from libs.telemetry.logging import get_logger

KEY_HEADER = "KALSHI-ACCESS-KEY"
TIMESTAMP_HEADER = "KALSHI-ACCESS-TIMESTAMP"
SIGNATURE_HEADER = "KALSHI-ACCESS-SIGNATURE"

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey

FORBIDDEN_BITS = 0o027
"""Permissions of a key file that are warned of: any of others, and writing by the group."""

log = get_logger(__name__)

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


def signed_text(timestamp_ms: str, method: str, path: str) -> bytes:
    """Return the bytes that are signed; the path counts from the root and without its query."""
    return f"{timestamp_ms}{method.upper()}{path.partition('?')[0]}".encode()


class Signer:
    """Signs as one key id.

    Raises (constructor):
        AuthRejected: no key id, or the PEM holds no usable private key; one line that says what to check.
    """

    def __init__(self, key_id: str, pem: bytes, origin: str = "the private key") -> None:
        if not key_id.strip():
            raise AuthRejected("no API key id: set exchange.api_key_id")
        self.key_id = key_id.strip()
        self._key = _load_key(pem, origin)

    def __repr__(self) -> str:
        """Show the key id only."""
        return f"Signer({self.key_id!r})"

    @property
    def public_key(self) -> PublicKey:
        """The key that verifies these signatures."""
        return self._key.public_key()

    def headers(self, method: str, path: str, now_us: int) -> dict[str, str]:
        """Return the three headers of one request at wall time now_us, microseconds."""
        timestamp = str(now_us // 1000)
        text = signed_text(timestamp, method, path)
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            signature = self._key.sign(text)
        else:
            signature = self._key.sign(text, _PSS, hashes.SHA256())
        return {
            KEY_HEADER: self.key_id,
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }


def load_signer(key_id: str, private_key_file: str) -> Signer:
    """Read a PEM file and return the signer of key_id; one that others may read is warned of, once.

    Raises:
        AuthRejected: the file is missing, unreadable or no usable private key; one line that says what to check.
    """
    if not private_key_file:
        raise AuthRejected("no private key: set exchange.private_key_file to the PEM file")
    path = Path(private_key_file).expanduser()
    try:
        pem = path.read_bytes()
        _warn_of_mode(str(path), path.stat().st_mode & 0o777)
    except OSError as error:
        cause = error.strerror or type(error).__name__
        raise AuthRejected(
            f"cannot read the private key {path}: {cause}; check exchange.private_key_file"
        ) from error
    return Signer(key_id, pem, origin=f"the private key {path}")


def rotating_signer(key_id: Callable[[], str], private_key_file: str) -> Callable[[], Signer]:
    """Return what gives the signer of this moment: both files are read again; while they cannot be, the last one signs.

    Raises:
        AuthRejected: as load_signer, at the first reading, which is done here.
    """
    last = load_signer(key_id(), private_key_file)

    def signer() -> Signer:
        nonlocal last
        try:
            last = load_signer(key_id(), private_key_file)
        except AuthRejected as error:
            log.warning("key_not_read", error=str(error))
        return last

    return signer


def verify(
    public_key: PublicKey, timestamp_ms: str, method: str, path: str, signature: str
) -> bool:
    """Tell whether a base64 signature of these header and request values was made by the key's owner."""
    text = signed_text(timestamp_ms, method, path)
    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(public_key, ed25519.Ed25519PublicKey):
            public_key.verify(raw, text)
        else:
            public_key.verify(raw, text, _PSS, hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=64)
def _warn_of_mode(path: str, mode: int) -> None:
    """Warn of a key that everybody may read, or more than its owner change; the group may read, as in a mounted secret."""
    if mode & FORBIDDEN_BITS:
        log.warning("key_file_open", path=path, mode=f"{mode:03o}", advice=f"chmod 600 {path}")


# Checking an RSA key takes 30 ms, and the file is read again at every connection: a zone opens 150 at once.
@functools.lru_cache(maxsize=8)
def _load_key(pem: bytes, origin: str) -> PrivateKey:
    hint = "check that exchange.private_key_file is the PEM file the exchange gave for this key id"
    if b"PUBLIC KEY-----" in pem or pem.startswith((b"ssh-", b"ecdsa-")):
        raise AuthRejected(f"{origin} is a public key; {hint}")
    if b"BEGIN CERTIFICATE-----" in pem:
        raise AuthRejected(f"{origin} is a certificate; {hint}")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise AuthRejected(
            f"{origin} is encrypted with a passphrase; store it without one"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AuthRejected(f"{origin} is not a PEM private key; {hint}") from error
    if not isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise AuthRejected(f"{origin} is neither RSA nor Ed25519; {hint}")
    return key
