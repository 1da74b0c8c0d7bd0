"""The migrated databases."""

from libs.store.pool import Target, connect


async def test_gatherer_has_identity(gatherer_db: Target) -> None:
    """A fresh gatherer database has one identity and its zone's name."""
    async with connect(gatherer_db) as conn:
        assert await conn.fetchval("SELECT zone FROM gatherer_identity") == "a"


async def test_production_level(production_db: Target) -> None:
    """A fresh production database states its level."""
    async with connect(production_db) as conn:
        assert await conn.fetchval("SELECT level FROM schema_level") == 1
