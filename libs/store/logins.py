"""Who may log in: roles with a password, made and changed by a migration.

The server is never sent a password, only its SCRAM verifier: what it logs, or shows of its statements, is no secret.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from libs.store.pool import AnyConnection, map_store_errors

ROLES: Final = ("kd_owner", "kd_writer", "kd_reader", "kd_planner", "kd_archiver", "kd_status")
"""The roles that the migrations make and grant to."""
SCRAM_ROUNDS: Final = 4096
"""PostgreSQL's own number of rounds."""
_SALT_BYTES: Final = 16

_EXISTS = "select exists (select from pg_roles where rolname = $1)"
_CREATE = "select format('create role %I login inherit password %L', $1::text, $2::text)"
_CHANGE = "select format('alter role %I login password %L', $1::text, $2::text)"
_IS_MEMBER = "select pg_has_role($1::name, $2::name, 'MEMBER')"
_GRANT = "select format('grant %I to %I', $1::text, $2::text)"


@dataclass(frozen=True, slots=True)
class Login:
    """A user that may log in as one of ROLES: the role itself, or another name that is made its member."""

    role: str
    user: str
    password: str = field(repr=False)


def scram_verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL keeps of a password (printable ASCII) under SCRAM-SHA-256."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(SCRAM_ROUNDS, *parts)


async def apply_logins(conn: AnyConnection, logins: Sequence[Login]) -> None:
    """Make every login and set its password, in one transaction; what is there already is changed.

    Raises:
        StoreRefused: this user may not make roles. StoreUnavailable: away.
    """
    with map_store_errors():
        async with conn.transaction():
            for login in logins:
                await _apply(conn, login)


async def _apply(conn: AnyConnection, login: Login) -> None:
    verifier = scram_verifier(login.password, secrets.token_bytes(_SALT_BYTES))
    there = await conn.fetchval(_EXISTS, login.user)
    await conn.execute(await conn.fetchval(_CHANGE if there else _CREATE, login.user, verifier))
    if not await conn.fetchval(_IS_MEMBER, login.user, login.role):
        await conn.execute(await conn.fetchval(_GRANT, login.role, login.user))
