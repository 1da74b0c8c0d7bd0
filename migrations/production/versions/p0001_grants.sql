-- Who may do what in production, level 1. Facts are inserted, never updated or deleted.

INSERT INTO schema_level (level, oldest_code_level) VALUES (1, 1);

GRANT SELECT ON ALL TABLES IN SCHEMA public TO kd_writer, kd_reader, kd_archiver, kd_status;
GRANT INSERT ON
    orderbook_deltas, trades, tickers, orderbook_snapshots, snapshot_cuts, market_lifecycle,
    market_versions, exchange_status, rejected_frames, listen_ranges, listen_opened, listen_closed,
    gaps
    TO kd_writer;
GRANT INSERT, UPDATE, DELETE ON
    gatherers, writer_lease, sync_cursors, sync_cursor_copies, merges, coverage, conflicts, operational_events, leases
    TO kd_writer;
GRANT INSERT, UPDATE, DELETE ON archive_manifests, archive_progress, archive_pending, retention_marks, leases TO kd_archiver;
GRANT INSERT ON operational_events TO kd_archiver;
