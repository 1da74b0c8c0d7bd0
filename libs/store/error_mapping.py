"""What the driver's and the system's errors mean to us, mapped at the border.

So the rest decides by class: StoreUnavailable is asked again, everything else ends the process with its own exit status.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from libs.store.errors import (
    SchemaAway,
    SchemaMismatch,
    StoreBroken,
    StoreConflict,
    StoreRefused,
    StoreUnavailable,
)

_UNAVAILABLE = (
    OSError,  # TimeoutError is one
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # locked, in use, or closed to connections
    asyncpg.PostgresSystemError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InternalClientError,
)
_MISMATCH = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.DatatypeMismatchError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
)
_REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError)


@contextmanager
def map_store_errors() -> Iterator[None]:
    """Raise the store's errors in place of the driver's and the system's, with the cause chained.

    Raises:
        StoreUnavailable: away, overloaded, locked, or the transaction must be repeated.
        StoreConflict: a unique key is taken.
        StoreRefused: wrong user, password or grants.
        SchemaMismatch: a table, column or database that is not there.
        StoreBroken: the server met damaged data or a fault of its own.
    """
    try:
        yield
    except _UNAVAILABLE as error:
        raise StoreUnavailable(text_of(error)) from error
    except asyncpg.UniqueViolationError as error:
        raise StoreConflict(text_of(error)) from error
    except _REFUSED as error:
        raise StoreRefused(text_of(error)) from error
    except _MISMATCH as error:
        raise SchemaMismatch(text_of(error)) from error
    except asyncpg.InternalServerError as error:
        raise StoreBroken(text_of(error)) from error
    except asyncpg.InterfaceError as error:
        # The driver has one class for a closed connection and for our own misuse; only the first may be retried.
        if _is_closed(error):
            raise StoreUnavailable(text_of(error)) from error
        raise


@contextmanager
def unfit_is_away() -> Iterator[None]:
    """Take a schema that does not fit for a database that is away: for who would lose what it holds by ending.

    Raises:
        SchemaAway: in place of SchemaMismatch.
    """
    try:
        yield
    except SchemaMismatch as error:
        raise SchemaAway(f"the schema does not fit: {error}") from error


def _is_closed(error: asyncpg.InterfaceError) -> bool:
    """Say whether a dead connection is the cause: its words say so, or they are a rollback's after it had died.

    The server's farewell comes a moment before the end of the socket; what is asked in between finds "another operation".
    """
    if any(word in str(error) for word in ("closed", "closing", "released", "terminated")):
        return True
    before = error.__context__
    return isinstance(before, _UNAVAILABLE) or (
        isinstance(before, asyncpg.InterfaceError) and _is_closed(before)
    )


def text_of(error: BaseException) -> str:
    """Say an error with its class."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
