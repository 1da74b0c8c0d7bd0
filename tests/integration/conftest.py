"""Fixtures of tests against real servers."""

from tests.support.kube_api import kube_api
from tests.support.postgres import gatherer_db, new_database, postgres_server, production_db

__all__ = ["gatherer_db", "kube_api", "new_database", "postgres_server", "production_db"]
