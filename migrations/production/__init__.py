"""The Alembic environment of the production database."""
