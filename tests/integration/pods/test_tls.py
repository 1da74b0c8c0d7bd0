"""TLS to a database as production has it: verified in full, or not at all and then said so."""

from dataclasses import replace
from pathlib import Path

import pytest

from libs.store.errors import StoreUnavailable
from libs.store.pool import connect, map_store_errors, open_pool
from libs.store.tls import Tls
from tests.integration.pods.conftest import Rds, make_certificates

IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-full"])
async def test_every_mode_encrypts_where_the_server_can(rds: Rds, tls: Tls, mode: str) -> None:
    """Also the default: what the server offers is taken."""
    chosen = tls if mode == "verify-full" else Tls(mode)  # type: ignore[arg-type]
    target = replace(rds.server.target(), tls=chosen)
    async with connect(target) as conn:
        assert await conn.fetchval(IS_ENCRYPTED) is True


async def test_a_stranger_is_not_believed(rds: Rds, tls: Tls, tmp_path: Path) -> None:
    """Another authority, another host's certificate, and a missing bundle: away, with the reason, never in the clear."""
    other = tmp_path / "other.pem"
    other.write_bytes(make_certificates()[0])
    target = rds.server.target()
    for wrong, said in (
        (replace(target, tls=Tls("verify-full", str(other))), "certificate verify failed"),
        (replace(target, host="localhost", tls=tls), "localhost"),
        (replace(target, tls=Tls("verify-full", str(tmp_path / "none.pem"))), "none.pem"),
        (replace(target, tls=Tls("verify-full")), "certificate verify failed"),
    ):
        with pytest.raises(StoreUnavailable, match=said):
            async with connect(wrong):
                pass


async def test_a_new_authority_needs_no_restart(rds: Rds, tls: Tls, tmp_path: Path) -> None:
    """A pool's next connection reads the bundle again; the one that is open stays."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(rds.ca_file.read_bytes())
    target = replace(rds.server.target(), tls=Tls("verify-full", str(bundle)))
    async with open_pool(target) as pool, pool.acquire() as kept:
        renewed = await rds.trust_anew()
        try:
            with pytest.raises(StoreUnavailable, match="certificate"):
                # The server takes its new certificate a moment after it is told to.
                for _ in range(1000):
                    async with connect(target):
                        pass
            with pytest.raises(StoreUnavailable, match="certificate"), map_store_errors():
                await pool.fetchval("SELECT 1")
            bundle.write_bytes(renewed)
            assert await pool.fetchval(IS_ENCRYPTED) is True
            assert await kept.fetchval("SELECT 2") == 2
        finally:
            rds.ca_file.write_bytes(renewed)
