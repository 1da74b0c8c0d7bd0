"""Tables and their rows."""

from libs.marketdata.rows import ROW_TYPES
from libs.marketdata.tables import GATHERER_TABLES


def test_rows_have_the_columns_of_their_tables() -> None:
    """A NamedTuple's fields are its table's columns, in COPY order, for every table of facts."""
    assert ROW_TYPES.keys() == GATHERER_TABLES.keys()
    for name, table in GATHERER_TABLES.items():
        assert ROW_TYPES[name]._fields == table.column_names  # type: ignore[attr-defined]


def test_keys_and_hashes_name_columns() -> None:
    """Identity, hash and time columns exist; a table without identity carries its number within the batch."""
    for table in GATHERER_TABLES.values():
        known = {*table.column_names, "gatherer"}
        assert {*table.identity, *table.hashed, table.time_column} <= known
        assert table.by_batch == ("row_no" in known)
