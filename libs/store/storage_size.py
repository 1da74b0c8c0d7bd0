"""How many bytes a database takes on its volume."""

from libs.store.pool import AnyConnection, map_store_errors


async def read_size(conn: AnyConnection) -> int:
    """Return the bytes of all files of this database, in every tablespace; the write-ahead log is not among them.

    The server asks its file system for the size of every file: some milliseconds for some thousand of them.

    Raises:
        StoreUnavailable: the database is away.
    """
    with map_store_errors():
        return int(await conn.fetchval("select pg_database_size(current_database())"))
