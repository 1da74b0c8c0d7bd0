"""Fixtures of tests against real servers."""

from tests.support.postgres import gatherer_db, new_database, postgres_server, production_db

__all__ = ["gatherer_db", "new_database", "postgres_server", "production_db"]
