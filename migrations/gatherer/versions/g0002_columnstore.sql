-- How the chunks of the large tables are stored once they are acknowledged: sorted by market and time. Which chunks and
-- when is decided by libs/store/columnstore.py; there is no policy, which would go by age alone. The Apache edition has
-- no columnstore: there every chunk stays as it is. The listening views look openings and closings up by key: not these.

DO $$
BEGIN
    IF current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
        RETURN;
    END IF;
    ALTER TABLE orderbook_deltas SET (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'ticker, exchange_ts');
    ALTER TABLE tickers SET (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'ticker, exchange_ts');
    ALTER TABLE trades SET (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'ticker, exchange_ts');
    ALTER TABLE orderbook_snapshots SET (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'ticker, observed_at');
    ALTER TABLE market_lifecycle SET (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'ticker, observed_at');
    ALTER TABLE snapshot_cuts SET (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'ticker, exchange_ts');
    ALTER TABLE listen_ranges SET (timescaledb.enable_columnstore, timescaledb.segmentby = '',
        timescaledb.orderby = 'connection, sid, seq_from');
END
$$;
