"""A password, and a user, that are rotated under a running process."""

from dataclasses import replace
from pathlib import Path

import pytest

from libs.runtime.secret import Secret
from libs.runtime.sections import StoreSettings
from libs.runtime.settings import load_settings
from libs.store.errors import StoreRefused, StoreUnavailable
from libs.store.pool import Target, connect, map_store_errors, open_pool
from services.migrate.settings import GathererSettings


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


async def test_every_new_connection_asks_for_the_user(gatherer_db: Target, tmp_path: Path) -> None:
    """Who rotates between two users, as secret managers do, changes both files; connections that are open stay."""
    for name, text in (("username", "kd_first\n"), ("password", "first\n")):
        (tmp_path / name).write_text(text)
    config = tmp_path / "gatherer.yaml"
    config.write_text(
        f"zone: z\nstore: {{host: {gatherer_db.host}, port: {gatherer_db.port}, database: {gatherer_db.database},"
        f" user_file: {tmp_path}/username, password_file: {tmp_path}/password}}\n"
    )
    store = load_settings(GathererSettings, config, {}).value.store
    assert store.user == "kd_first"
    async with connect(gatherer_db) as admin:
        await admin.execute("create role kd_first login password 'first'")
        await admin.execute("create role kd_second login password 'second'")
        try:
            async with open_pool(store.target()) as pool, pool.acquire() as kept:
                (tmp_path / "username").write_text("kd_second\n")
                with pytest.raises(StoreUnavailable, match="kd_second"), map_store_errors():
                    await pool.fetchval("select 1")
                (tmp_path / "password").write_text("second\n")
                assert await pool.fetchval("select current_user") == "kd_second"
                assert await kept.fetchval("select current_user") == "kd_first"
        finally:
            await admin.execute("drop role kd_first")
            await admin.execute("drop role kd_second")
