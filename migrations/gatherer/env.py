"""Alembic's entry to the gatherer database's revisions."""

from migrations.environment import run

run("alembic_version")
