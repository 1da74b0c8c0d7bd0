from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from libs.exchange.errors import AuthRejected
from libs.exchange.signing import Signer, load_signer, rotating_signer, verify

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
NOW = 1_781_159_489_957_081
PATH = "/trade-api/v2/markets"


def pem(
    key: rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ec.EllipticCurvePrivateKey
    | dsa.DSAPrivateKey,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
    passphrase: bytes = b"",
) -> bytes:
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


@pytest.mark.parametrize(
    "data",
    [
        pem(RSA),
        pem(RSA, serialization.PrivateFormat.TraditionalOpenSSL),
        pem(ED25519),
    ],
    ids=["rsa-pkcs8", "rsa-pkcs1", "ed25519"],
)
def test_signatures_verify_with_the_public_key(data: bytes) -> None:
    """The three headers verify: time in milliseconds, method in capitals, path without its query."""
    signer = Signer("key-1", data)
    headers = signer.headers("get", PATH + "?limit=5", NOW)
    assert headers["KALSHI-ACCESS-KEY"] == "key-1"
    assert headers["KALSHI-ACCESS-TIMESTAMP"] == "1781159489957"
    signature, time = headers["KALSHI-ACCESS-SIGNATURE"], headers["KALSHI-ACCESS-TIMESTAMP"]
    assert verify(signer.public_key, time, "GET", PATH, signature)
    assert verify(signer.public_key, time, "GET", PATH + "?other=1", signature)
    assert not verify(signer.public_key, time, "POST", PATH, signature)
    assert not verify(signer.public_key, time, "GET", PATH + "/x", signature)
    assert not verify(signer.public_key, "1781159489958", "GET", PATH, signature)
    assert not verify(signer.public_key, time, "GET", PATH, "no base64!")
    assert not verify(signer.public_key, time, "GET", PATH, "AAAA")


def test_the_key_never_shows() -> None:
    """The signer's text names the key id only."""
    assert repr(Signer(" key-1\n", pem(RSA))) == "Signer('key-1')"


def test_load_signer_reads_the_file(tmp_path: Path) -> None:
    """A PEM file of the exchange is enough."""
    path = tmp_path / "kalshi.pem"
    path.write_bytes(pem(RSA))
    signer = load_signer("key-1", str(path))
    assert signer.public_key.public_numbers() == RSA.public_key().public_numbers()  # type: ignore[union-attr]


def test_a_key_is_checked_once_and_a_rotated_one_is_seen_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zone opens 150 connections at once and reads the file at each: 30 ms of checking would hold up everything else."""
    checked = []
    load = serialization.load_pem_private_key

    def counted(data: bytes, password: bytes | None) -> object:
        checked.append(data)
        return load(data, password)

    monkeypatch.setattr(serialization, "load_pem_private_key", counted)
    path, old, new = tmp_path / "kalshi.pem", pem(RSA), pem(ED25519)
    path.write_bytes(old)
    signers = [load_signer("key-1", str(path)) for _ in range(3)]
    path.write_bytes(new)
    signers.append(load_signer("key-1", str(path)))
    assert checked == [old, new]
    assert [type(signer.public_key) for signer in signers[2:]] == [
        type(RSA.public_key()), type(ED25519.public_key()),
    ]  # fmt: skip


def test_a_rotated_key_signs_with_its_id_at_once(tmp_path: Path) -> None:
    """Id and key are read again at every question; while they are being replaced the last pair goes on signing."""
    path, ids = tmp_path / "kalshi.pem", ["key-1"]
    path.write_bytes(pem(RSA))
    signer = rotating_signer(lambda: ids[0], str(path))
    assert (signer().key_id, type(signer().public_key)) == ("key-1", type(RSA.public_key()))
    path.unlink()
    ids[0] = "key-2"
    assert signer().key_id == "key-1"
    path.write_bytes(pem(ED25519))
    assert (signer().key_id, type(signer().public_key)) == ("key-2", type(ED25519.public_key()))
    with pytest.raises(AuthRejected, match="cannot read"):
        rotating_signer(lambda: "key-1", str(tmp_path / "none.pem"))


PUBLIC = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "cannot read the private key"),
        (b"", "is not a PEM private key"),
        (b"garbage", "is not a PEM private key"),
        (pem(RSA)[:300], "is not a PEM private key"),
        (pem(RSA, passphrase=b"x"), "is encrypted with a passphrase"),
        (
            pem(RSA, serialization.PrivateFormat.TraditionalOpenSSL, passphrase=b"x"),
            "is encrypted with a passphrase",
        ),
        (pem(ED25519, passphrase=b"x"), "is encrypted with a passphrase"),
        (b"ssh-ed25519 AAAA me@host", "is a public key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is a certificate"),
        (pem(dsa.generate_private_key(1024)), "is neither RSA nor Ed25519"),
        (PUBLIC, "is a public key"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "is neither RSA nor Ed25519"),
    ],
)
def test_an_unusable_key_is_one_clear_line(tmp_path: Path, data: bytes | None, words: str) -> None:
    """Missing, garbled, encrypted or foreign keys say what is wrong and where, in one line, without the key."""
    path = tmp_path / "kalshi.pem"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(AuthRejected) as caught:
        load_signer("key-1", str(path))
    text = str(caught.value)
    assert words in text
    assert str(path) in text
    assert "\n" not in text
    assert not caught.value.retryable


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    """What a mistyped mount gives; the line names it."""
    with pytest.raises(AuthRejected, match=f"cannot read the private key {tmp_path}: "):
        load_signer("key-1", str(tmp_path))


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o440, False), (0o644, True), (0o660, True)]
)
def test_a_key_that_others_may_read_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    """It is used all the same; a secret mounted for a group is as it should be."""
    path = tmp_path / "kalshi.pem"
    path.write_bytes(pem(ED25519))
    path.chmod(mode)
    for _ in range(3):
        load_signer("key-1", str(path))
    assert [record.message for record in caplog.records] == ["key_file_open"] * warned


def test_missing_settings_are_named() -> None:
    """An empty key id or file names the setting."""
    with pytest.raises(AuthRejected, match="api_key_id"):
        Signer(" ", pem(RSA))
    with pytest.raises(AuthRejected, match="private_key_file"):
        load_signer("key-1", "")


def test_against_the_official_package() -> None:
    """The exchange's own package signs so that our verification accepts it (skipped where it is not installed)."""
    package = pytest.importorskip("kalshi_python_sync")
    auth = package.auth.KalshiAuth("key-1", pem(RSA).decode())
    headers = auth.create_auth_headers("GET", PATH)
    assert verify(
        RSA.public_key(),
        headers["KALSHI-ACCESS-TIMESTAMP"],
        "GET",
        PATH,
        headers["KALSHI-ACCESS-SIGNATURE"],
    )
