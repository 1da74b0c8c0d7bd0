"""Everything about PostgreSQL and TimescaleDB: pools, COPY, ledger, cursors, leases, partitions, schema levels."""
