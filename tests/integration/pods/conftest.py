"""A server as production has it: TLS with an authority of its own, and a master user that is no superuser."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.store.pool import connect
from libs.store.tls import Tls
from services.local.postgres import EmbeddedPostgres
from tests.support.postgres import run, scratch_directory, server_programs

MASTER = "master"
PASSWORD = "of the master"
DATABASE = "kalshi"


@dataclass(frozen=True, slots=True)
class Rds:
    """The server and where its authority's certificate lies."""

    server: EmbeddedPostgres
    ca_file: Path

    @property
    def tls(self) -> Tls:
        """The strictest that the server can: programs of a wheel are built without TLS."""
        return Tls("verify-full", str(self.ca_file)) if self.ca_file.exists() else Tls()

    async def trust_anew(self) -> bytes:
        """Give the server a certificate of a new authority; return that authority's certificate (PEM)."""
        ca, certificate, key = make_certificates()
        home = self.server.home
        for name, data in (("server.crt", certificate), ("server.key", key)):
            file = home / name
            file.write_bytes(data)
            file.chmod(0o600)
            if self.server.user.uid is not None:
                shutil.chown(file, self.server.user.uid, self.server.user.gid)
        async with connect(self.server.target()) as conn:
            for name in ("crt", "key"):
                option = "ssl_cert_file" if name == "crt" else "ssl_key_file"
                await conn.execute(f"ALTER SYSTEM SET {option} = '{home}/server.{name}'")
            await conn.execute("ALTER SYSTEM SET ssl = on")
            await conn.execute("SELECT pg_reload_conf()")
        return ca


def make_certificates() -> tuple[bytes, bytes, bytes]:
    """Return an authority's certificate, and certificate and key of a server at 127.0.0.1 that it vouches for; all PEM."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
    ca = _sign(authority, authority, ca_key, ca_key, x509.BasicConstraints(True, None))
    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server of a test")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = _sign(server, authority, key, ca_key, names)
    pem = serialization.Encoding.PEM
    return (
        ca.public_bytes(pem),
        certificate.public_bytes(pem),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(extension, critical=False)
        .sign(by, hashes.SHA256())
    )


@pytest.fixture(scope="package")
def rds() -> Iterator[Rds]:
    """A server that logs every statement, with the master user and its empty database."""
    directory = scratch_directory()
    server = EmbeddedPostgres(
        directory / "rds",
        bin_dir=server_programs(),
        settings={"log_statement": "all"},
        sync_init=False,
    )
    try:
        run(server.start())
        yield run(_prepare(server, directory))
    finally:
        run(server.kill())
        shutil.rmtree(directory, ignore_errors=True)


async def _prepare(server: EmbeddedPostgres, directory: Path) -> Rds:
    async with connect(server.target()) as conn:
        await conn.execute(f"CREATE ROLE {MASTER} LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}'")
        await conn.execute(f"CREATE DATABASE {DATABASE} OWNER {MASTER}")
    made = Rds(server, directory / "ca.pem")
    with contextlib.suppress(asyncpg.InvalidParameterValueError):
        made.ca_file.write_bytes(await made.trust_anew())
    return made


@pytest.fixture(autouse=True)
async def sockets_are_gone() -> AsyncIterator[None]:
    """End a test when its loop has no socket left: a farewell in TLS takes some turns more than the driver waits for."""
    yield
    loop: Any = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while len(loop._selector.get_map()) > 1:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


@pytest.fixture
def tls(rds: Rds) -> Tls:
    """Verification in full, on a server that has TLS."""
    if not rds.ca_file.exists():
        pytest.skip("these server programs are built without TLS")
    return rds.tls
