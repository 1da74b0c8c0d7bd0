"""Tables and their rows."""

from libs.marketdata.rows import ROW_TYPES
from libs.marketdata.tables import GATHERER_TABLES, production_columns, production_key


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


def test_production_keys_contain_the_partition_column_and_only_columns_of_production() -> None:
    """PostgreSQL allows a unique key of a partitioned table only with the partition column in it."""
    for table in GATHERER_TABLES.values():
        key = production_key(table)
        assert set(key) <= {column.name for column in production_columns(table)}
        assert table.time_column in key or not table.partitioned_in_production
        assert len(set(key)) == len(key)
