"""The Alembic environment of the gatherer database."""
