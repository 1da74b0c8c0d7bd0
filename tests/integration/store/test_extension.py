"""TimescaleDB after a new image (KALSHI_TEST_TIMESCALE=1); a plain server has nothing to update."""

import pytest

from libs.store.errors import StoreUnavailable
from libs.store.pool import Target, connect, map_store_errors
from migrations.upgrade import update_extension
from tests.support.extensions import OWN, StandIn, server_18, stand_in
from tests.support.postgres import with_timescale

__all__ = ["server_18", "stand_in"]

INSTALLED = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
GONE = "2.28.2"
"""A version from which this server's files know the way, but whose library is not there: an image without old ones."""


async def test_what_is_up_to_date_or_not_there_is_left(gatherer_db: Target) -> None:
    """A second migration, and one of a plain server, changes nothing and says so."""
    async with connect(gatherer_db) as conn:
        before = await conn.fetchval(INSTALLED)
        assert (before is not None) is with_timescale()
        assert not await update_extension(gatherer_db)
        assert await conn.fetchval(INSTALLED) == before


@pytest.mark.skipif(not with_timescale(), reason="plain PostgreSQL has no extension")
async def test_an_extension_whose_library_is_gone_is_updated(gatherer_db: Target) -> None:
    """In that state any other first statement of a session fails; afterwards the version is the server's."""
    async with connect(gatherer_db) as conn:
        there = await conn.fetchval(INSTALLED)
        way = await conn.fetchval(
            "SELECT path FROM pg_extension_update_paths('timescaledb') WHERE source = $1 AND target = $2",
            GONE,
            there,
        )
        if way is None:
            pytest.skip(f"this server knows no way from {GONE} to {there}")
        await conn.execute(
            "UPDATE _timescaledb_catalog.metadata SET value = $1 WHERE key = 'timescaledb_version'",
            GONE,
        )
        await conn.execute(
            "UPDATE pg_extension SET extversion = $1 WHERE extname = 'timescaledb'", GONE
        )
    with pytest.raises(StoreUnavailable, match=GONE), map_store_errors():
        async with connect(gatherer_db) as conn:
            await conn.fetchval("SELECT count(*) FROM trades")
    assert await update_extension(gatherer_db)
    async with connect(gatherer_db) as conn:
        assert await conn.fetchval(INSTALLED) == there
        assert await conn.fetchval("SELECT count(*) FROM trades") == 0


async def test_an_older_extension_is_brought_forward(stand_in: StandIn) -> None:
    """By numbers, not letters: 2.9 is older than 2.29."""
    await stand_in.install("2.9.1")
    assert await update_extension(stand_in.target)
    assert await stand_in.installed() == OWN
    assert not await update_extension(stand_in.target)


@pytest.mark.parametrize("has_way", [False, True])
async def test_an_image_that_was_taken_back_leaves_the_newer_extension(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture, has_way: bool
) -> None:
    """The migration does not fail of it, and says what to do; also where the files know a way back."""
    if has_way:
        stand_in.add(f"2.30.0--{OWN}")
    await stand_in.install("2.30.0")
    assert not await update_extension(stand_in.target)
    assert await stand_in.installed() == "2.30.0"
    (told,) = [vars(line)["facts"] for line in caplog.records if line.levelname == "WARNING"]
    assert (told["installed"], told["there"]) == ("2.30.0", OWN)
    assert told["advice"].endswith("keep the newer database.image")


async def test_a_version_without_a_way_is_left(stand_in: StandIn) -> None:
    """Older than the server's, but so old that its files have forgotten it."""
    stand_in.add("2.1.0")
    await stand_in.install("2.1.0")
    assert not await update_extension(stand_in.target)
    assert await stand_in.installed() == "2.1.0"
