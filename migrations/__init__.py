"""The two schemas, each an Alembic environment: gatherer (one database per zone) and production."""
