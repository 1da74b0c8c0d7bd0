"""Alembic's entry to the production database's revisions."""

from migrations.environment import run

run("alembic_version")
