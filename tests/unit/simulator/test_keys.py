"""The judge of signatures, against keys made here and signatures made by the rule of the documentation."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from services.simulator.keys import KeyFileInvalid, KeyRing, Refusal
from services.simulator.settings import KeySettings

PATH = "/trade-api/v2/account/limits"
NOW_MS = 1_795_000_000_000
PEM = serialization.Encoding.PEM
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)

RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def by_rsa(text: bytes) -> bytes:
    return RSA_KEY.sign(text, PSS, hashes.SHA256())


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    """One key of each kind."""
    settings = []
    for name, key in (("rsa", RSA_KEY), ("ed", ED_KEY)):
        file = tmp_path / f"{name}.pem"
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        file.write_bytes(key.public_key().public_bytes(PEM, form))
        settings.append(KeySettings(name, str(file)))
    return KeyRing.load(tuple(settings), skew_ms_max=10_000)


def headers(
    key_id: str, sign: Callable[[bytes], bytes], skew_ms: int = 0, text: str = ""
) -> dict[str, str]:
    timestamp = str(NOW_MS + skew_ms)
    signature = sign(f"{timestamp}{text or 'GET' + PATH}".encode())
    return {
        "KALSHI-ACCESS-KEY": key_id,
        "KALSHI-ACCESS-TIMESTAMP": timestamp,
        "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
    }


@pytest.mark.parametrize(("key_id", "sign"), [("rsa", by_rsa), ("ed", ED_KEY.sign)])
def test_both_kinds_of_keys_verify(
    keys: KeyRing, key_id: str, sign: Callable[[bytes], bytes]
) -> None:
    """kalshi-api 2: RSA-PSS and Ed25519 sign the same text; another text, and the other key, are refused."""
    assert keys.refuse(headers(key_id, sign), "GET", PATH, NOW_MS) is None
    wrong_text = headers(key_id, sign, text=f"GET{PATH}?limit=1")
    assert keys.refuse(wrong_text, "GET", PATH, NOW_MS) is Refusal.BAD_SIGNATURE
    other = {"rsa": "ed", "ed": "rsa"}[key_id]
    assert keys.refuse(headers(other, sign), "GET", PATH, NOW_MS) is Refusal.BAD_SIGNATURE
    assert keys.refuse(headers("nobody", sign), "GET", PATH, NOW_MS) is Refusal.UNKNOWN_KEY


@pytest.mark.parametrize("skew_ms", [-30_000, -10_001, 10_001, 300_000])
def test_a_skewed_clock_is_refused_with_its_own_code(keys: KeyRing, skew_ms: int) -> None:
    """kalshi-api 2: half a minute off is header_timestamp_expired, before any look at the signature."""
    refusal = keys.refuse(headers("rsa", by_rsa, skew_ms), "GET", PATH, NOW_MS)
    assert refusal is Refusal.EXPIRED
    assert b"header_timestamp_expired" in refusal.value
    assert keys.refuse(headers("nobody", by_rsa, skew_ms), "GET", PATH, NOW_MS) is Refusal.EXPIRED


@pytest.mark.parametrize("skew_ms", [-5_000, 5_000, 10_000])
def test_a_few_seconds_are_accepted(keys: KeyRing, skew_ms: int) -> None:
    """kalshi-api 2: plus or minus 5 s, and 10 s, were accepted."""
    assert keys.refuse(headers("rsa", by_rsa, skew_ms), "GET", PATH, NOW_MS) is None


@pytest.mark.parametrize("missing", ["KALSHI-ACCESS-SIGNATURE", "KALSHI-ACCESS-TIMESTAMP"])
def test_a_missing_header_is_said(keys: KeyRing, missing: str) -> None:
    """kalshi-api 1.4: without a signature, 401 signature_is_missing_from_headers."""
    signed = headers("rsa", by_rsa)
    del signed[missing]
    refusal = keys.refuse(signed, "GET", PATH, NOW_MS)
    assert refusal is Refusal.MISSING
    assert b"signature_is_missing_from_headers" in refusal.value


def test_what_is_no_base64_is_a_bad_signature(keys: KeyRing) -> None:
    """A signature that cannot be decoded is answered, not raised."""
    signed = headers("rsa", by_rsa) | {"KALSHI-ACCESS-SIGNATURE": "not base64!"}
    assert keys.refuse(signed, "GET", PATH, NOW_MS) is Refusal.BAD_SIGNATURE


def test_a_key_of_another_kind_is_refused_at_start(tmp_path: Path) -> None:
    """An elliptic-curve key is neither RSA nor Ed25519; the message names the setting and the file."""
    file = tmp_path / "ec.pem"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    file.write_bytes(public.public_bytes(PEM, form))
    with pytest.raises(KeyFileInvalid, match=r"simulator.keys: one: .*ec.pem: neither an RSA"):
        KeyRing.load((KeySettings("one", str(file)),), skew_ms_max=1)


def test_a_private_key_serves_by_its_public_part(tmp_path: Path) -> None:
    """One Secret with the private key is enough for both sides; one with a passphrase, or of another kind, is refused."""
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    settings = []
    for name, key in (("rsa", RSA_KEY), ("ed", ED_KEY)):
        file = tmp_path / f"{name}.pem"
        file.write_bytes(key.private_bytes(PEM, form, none))
        settings.append(KeySettings(name, str(file)))
    ring = KeyRing.load(tuple(settings), skew_ms_max=10_000)
    for name, sign in (("rsa", by_rsa), ("ed", ED_KEY.sign)):
        assert ring.refuse(headers(name, sign), "GET", PATH, NOW_MS) is None
    assert ring.refuse(headers("rsa", ED_KEY.sign), "GET", PATH, NOW_MS) is Refusal.BAD_SIGNATURE
    locked = RSA_KEY.private_bytes(PEM, form, serialization.BestAvailableEncryption(b"x"))
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, form, none)
    for pem, said in ((locked, "passphrase"), (other, "neither an RSA nor an Ed25519")):
        (tmp_path / "wrong.pem").write_bytes(pem)
        with pytest.raises(KeyFileInvalid, match=said):
            KeyRing.load((KeySettings("k", str(tmp_path / "wrong.pem")),), skew_ms_max=1)
