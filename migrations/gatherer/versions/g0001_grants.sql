-- Who may do what in a gatherer's database, level 1. Facts are inserted, never updated or deleted.

INSERT INTO schema_level (level, oldest_code_level) VALUES (1, 1);

GRANT SELECT ON ALL TABLES IN SCHEMA public TO kd_writer, kd_reader, kd_status;
GRANT USAGE ON SEQUENCE batch_ids TO kd_writer;
GRANT INSERT ON
    orderbook_deltas, trades, tickers, orderbook_snapshots, snapshot_cuts, market_lifecycle,
    market_versions, exchange_status, rejected_frames, listen_ranges, listen_opened, listen_closed,
    gaps
    TO kd_writer;
GRANT INSERT, UPDATE, DELETE ON
    lanes, ingest_batches, lane_releases, lane_acknowledgements, shards, slot_assignments, planner, leases, series,
    events, markets, slot_versions, registry_state
    TO kd_writer;
GRANT INSERT, UPDATE, DELETE ON lane_releases, lane_acknowledgements TO kd_reader;
GRANT SELECT ON schema_level, gatherer_identity, shards, slot_assignments, planner TO kd_planner;
GRANT INSERT, UPDATE, DELETE ON slot_assignments, planner TO kd_planner;
