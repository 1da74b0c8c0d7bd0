"""A password that is rotated under a running process."""

from dataclasses import replace
from pathlib import Path

import pytest

from libs.runtime.secret import Secret
from libs.runtime.sections import StoreSettings
from libs.store.errors import StoreRefused, StoreUnavailable
from libs.store.pool import Target, connect, map_store_errors, open_pool


async def test_every_new_connection_asks_for_the_password(
    gatherer_db: Target, tmp_path: Path
) -> None:
    """Between the server's change and the file's the database counts as away; then connections open again."""
    file = tmp_path / "password"
    file.write_text("first\n")
    async with connect(gatherer_db) as admin:
        await admin.execute("create role kd_rotated login password 'first'")
        try:
            settings = StoreSettings(
                gatherer_db.database, "kd_rotated", Secret.from_file(file), gatherer_db.host, gatherer_db.port
            )  # fmt: skip
            async with open_pool(settings.target()) as pool, pool.acquire() as kept:
                await admin.execute("alter role kd_rotated password 'second'")
                with pytest.raises(StoreUnavailable, match="password"), map_store_errors():
                    await pool.fetchval("select 1")
                file.write_text("second\n")
                assert await pool.fetchval("select 1") == 1
                assert await kept.fetchval("select 2") == 2
        finally:
            await admin.execute("drop role kd_rotated")


async def test_a_first_login_that_is_refused_is_no_rotation(gatherer_db: Target) -> None:
    """A wrong configuration is said, not waited for, also by a pool that opens lazily."""
    wrong = replace(gatherer_db, password="wrong")
    with pytest.raises(StoreRefused):
        async with open_pool(wrong):
            pass
    async with open_pool(wrong, wait=False) as pool:
        with pytest.raises(StoreRefused), map_store_errors():
            await pool.fetchval("select 1")
