"""What both Alembic environments do: run the revisions over a given connection, or over one made from the URL."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine


def run(version_table: str) -> None:
    """Run the environment; called by each env.py.

    The program passes its connection as attribute `connection`; the alembic command line passes `sqlalchemy.url`.
    """
    if context.is_offline_mode():
        raise SystemExit("migrations ask the server what it has; --sql is not supported")
    given = context.config.attributes.get("connection")
    if given is not None:
        _run_over(given, version_table)
    else:
        asyncio.run(_connect_and_run(version_table))


def _run_over(connection: Connection, version_table: str) -> None:
    context.configure(connection=connection, version_table=version_table)
    with context.begin_transaction():
        context.run_migrations()


async def _connect_and_run(version_table: str) -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit(
            "no sqlalchemy.url; use `kalshi-data migrate`, or set it in migrations/alembic.ini"
        )
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run_over, version_table)
    await engine.dispose()
