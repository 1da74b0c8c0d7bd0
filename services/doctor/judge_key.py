"""The key: its file, and what a refusal of it means. Pure."""

import stat

from libs.exchange.errors import AuthRejected, ClockSkewed, ExchangeError
from libs.exchange.probe import KeyKind
from services.doctor.findings import Finding, fail, ok, warn

FILE, ACCEPTED, SCOPES = "key file", "key accepted", "key scopes"
RSA_BITS_MIN = 2048


def judge_key_file(path: str, kind: KeyKind, mode: int) -> Finding:
    """Judge a key that could be read; mode: the file's permission bits."""
    named = f"{kind.name} {kind.bits} bits" if kind.bits else kind.name
    found = f"{named}, {path}, mode {stat.S_IMODE(mode):04o}"
    if mode & stat.S_IROTH:
        return warn(FILE, f"{found}: everybody on this machine can read it", f"chmod 600 {path}")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return warn(FILE, f"{found}: others can replace it", f"chmod 600 {path}")
    if kind.bits and kind.bits < RSA_BITS_MIN:
        return warn(FILE, f"{found}: a short key", "make a new key at the exchange")
    return ok(FILE, found)


def judge_refusal(check: str, error: ExchangeError, environment: str) -> Finding:
    """Say which of the ways to be refused it was, and what to do."""
    said = str(error)
    if isinstance(error, ClockSkewed):
        return fail(
            check,
            "refused for the time in the signature (401 header_timestamp_expired)",
            "this machine's clock is wrong: see the line `clock`, synchronise it (chrony or systemd-timesyncd)",
        )
    if "NOT_FOUND" in said:
        return fail(
            check,
            "the exchange does not know this key id (401 NOT_FOUND)",
            f"compare --api-key-id with the exchange's list of keys; a key of another environment than {environment}"
            " is unknown here, and so is a deleted one",
        )
    if "INCORRECT_API_KEY_SIGNATURE" in said:
        return fail(
            check,
            "the exchange knows the key id, but the signature is not its key's (401 INCORRECT_API_KEY_SIGNATURE)",
            "the private key file belongs to another key id: use the file saved when this key was made, or make a new key",
        )
    if "signature_is_missing" in said:
        return fail(
            check,
            "the signature did not arrive (401 signature_is_missing_from_headers)",
            "a proxy between here and the exchange drops headers (KALSHI-ACCESS-*): go around it",
        )
    if "HTTP 403" in said:
        return fail(
            check,
            "the key is known but may not do this (403)",
            "give it the scope `read`, or make a key without restrictions of address or scope",
        )
    return _other(check, error, said)


def judge_scopes(scopes: list[str] | None) -> Finding:
    """Judge what the key may do; None: the exchange does not show it to this key."""
    if scopes is None:
        return ok(SCOPES, "not shown to this key; `read` is all that capturing needs")
    listed = ", ".join(sorted(scopes)) or "none named (full access)"
    if scopes == ["read"]:
        return ok(SCOPES, "read: enough for everything here, and it cannot trade")
    return warn(
        SCOPES,
        f"{listed}: more than capturing needs",
        "a key with the scope `read` alone opens the websocket and reads everything; it cannot trade when it is stolen",
    )


def _other(check: str, error: ExchangeError, said: str) -> Finding:
    if isinstance(error, AuthRejected):
        return fail(check, said, "check key id, private key file and environment")
    return fail(check, said, "the exchange did not say whether it takes the key: try again later")
