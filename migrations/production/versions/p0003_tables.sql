-- The production database, level 3. Frozen: a later change is a new revision.

-- Ranges of a table, each a partition's [range_from, range_to), that lie below its row of retention_marks and are wanted
-- again. A range below the mark that manifests speak of holds rows in the archive only, unless it is 'open' here.
-- requested: the archiver is to load it back. open: every archived row of it is in production, new ones may come.
-- failed: an object of it is missing or wrong (detail); it is tried again. closed: dropped again.
-- used_at: when somebody last waited for it or merged into it; it is dropped again a while after.
CREATE TABLE archive_reopenings (
    table_name text COLLATE "C" NOT NULL,
    range_from bigint NOT NULL,
    range_to bigint NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'open', 'failed', 'closed')),
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    tried_at timestamptz,
    opened_at timestamptz,
    closed_at timestamptz,
    rows bigint,
    detail text NOT NULL DEFAULT '',
    PRIMARY KEY (table_name, range_from),
    CHECK (range_from < range_to)
);

-- Whoever drops a partition raises the table's mark with the partition's end, in that transaction: by that a range that
-- was open is closed again, also when code of an earlier level drops it.
CREATE FUNCTION close_reopening() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE archive_reopenings SET state = 'closed', closed_at = clock_timestamp(), detail = ''
     WHERE table_name = NEW.table_name AND range_to = NEW.dropped_before AND state = 'open';
    RETURN NEW;
END
$$;
CREATE TRIGGER close_reopening BEFORE INSERT ON retention_marks FOR EACH ROW EXECUTE FUNCTION close_reopening();

GRANT SELECT ON archive_reopenings TO kd_writer, kd_reader, kd_archiver, kd_status;
GRANT INSERT, UPDATE ON archive_reopenings TO kd_writer, kd_archiver;

-- The archiver brings rows back that it took away.
GRANT INSERT ON
    orderbook_deltas, trades, tickers, orderbook_snapshots, snapshot_cuts, market_lifecycle,
    market_versions, exchange_status, rejected_frames, listen_ranges, listen_opened, listen_closed,
    gaps
    TO kd_archiver;

UPDATE schema_level SET level = 3;
