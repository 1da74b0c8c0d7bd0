-- The production database, level 1. Frozen: a later change is a new revision.
-- All times are bigint microseconds since the epoch unless they are timestamptz, which is the database's own clock.
-- Text sorts by bytes everywhere, whatever the server's locale.
-- The marks "partition by ... width ..." are filled in by libs/store/partitions.py.

CREATE TABLE schema_level (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    level integer NOT NULL,
    oldest_code_level integer NOT NULL
);

-- What a hypertable of bigint microseconds calls the present; also for reading by hand.
CREATE FUNCTION now_us() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (extract(epoch FROM now()) * 1000000)::bigint;

CREATE FUNCTION floor_ms(micros bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN micros - ((micros % 1000) + 1000) % 1000;

CREATE FUNCTION ceil_ms(micros bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN -floor_ms(-micros);

CREATE TABLE gatherers (
    gatherer smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    identity uuid NOT NULL UNIQUE,
    zone text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'ok' CHECK (status IN ('ok', 'quarantined', 'replaced')),
    detail text,
    admitted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The one writer -------------------------------------------------------------------------------------------------

CREATE TABLE writer_lease (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL DEFAULT 0,
    holder uuid,
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    merge_no bigint NOT NULL DEFAULT 0
);
INSERT INTO writer_lease DEFAULT VALUES;

CREATE TABLE sync_cursors (
    gatherer smallint NOT NULL,
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    family text COLLATE "C" NOT NULL,
    merged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (gatherer, lane)
);

CREATE TABLE sync_cursor_copies (
    copied_at timestamptz NOT NULL,
    merge_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    PRIMARY KEY (copied_at, gatherer, lane)
);

CREATE TABLE merges (
    merge_no bigint PRIMARY KEY,
    merged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rows_read bigint NOT NULL,
    rows_inserted bigint NOT NULL
);
CREATE INDEX merges_merged_at ON merges (merged_at);

CREATE TABLE coverage (
    merge_no bigint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    minute bigint NOT NULL,
    gatherers smallint[] NOT NULL,
    is_late boolean NOT NULL,
    facts bigint NOT NULL
);
CREATE INDEX coverage_minute ON coverage (minute, table_name);

CREATE TABLE conflicts (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    merge_no bigint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    kept text NOT NULL,
    refused text NOT NULL
);

CREATE TABLE operational_events (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text COLLATE "C" NOT NULL,
    gatherer smallint,
    detail text NOT NULL DEFAULT ''
);
CREATE INDEX operational_events_at ON operational_events (at);

CREATE TABLE archive_manifests (
    table_name text COLLATE "C" NOT NULL,
    window_from bigint NOT NULL,
    window_to bigint NOT NULL,
    supplement integer NOT NULL,
    object text COLLATE "C" NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    sha256 text COLLATE "C" NOT NULL,
    time_min bigint,
    time_max bigint,
    ticker_min text COLLATE "C",
    ticker_max text COLLATE "C",
    merge_from bigint NOT NULL,
    merge_to bigint NOT NULL,
    schema_version integer NOT NULL,
    pyarrow_version text COLLATE "C" NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, window_from, window_to, supplement)
);

-- What the archiver has looked at, and the windows whose rows no object holds yet.
CREATE TABLE archive_progress (
    table_name text COLLATE "C" PRIMARY KEY,
    merge_no bigint NOT NULL
);

CREATE TABLE archive_pending (
    table_name text COLLATE "C" NOT NULL,
    window_from bigint NOT NULL,
    window_to bigint NOT NULL,
    PRIMARY KEY (table_name, window_from, window_to)
);

-- Below this time (microseconds, by the table's partition column) rows were archived and dropped: no row may come in
-- there as a new one. Written where partitions are dropped, in that transaction.
CREATE TABLE retention_marks (
    table_name text COLLATE "C" PRIMARY KEY,
    dropped_before bigint NOT NULL
);

CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    holder uuid NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL
);

-- Facts: every one once, with the gatherer whose copy came first and the number of the merge that brought it ---------

CREATE TABLE orderbook_deltas (
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    size_delta bigint NOT NULL,
    seq bigint NOT NULL,
    price integer NOT NULL,
    occurrence integer NOT NULL,
    sid integer NOT NULL,
    side boolean NOT NULL,
    connection uuid NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    sent_at bigint,
    pos integer,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by exchange_ts width 3600000000*/;
CREATE UNIQUE INDEX orderbook_deltas_key ON orderbook_deltas (ticker, exchange_ts, price, side, size_delta, occurrence) NULLS NOT DISTINCT;
CREATE INDEX orderbook_deltas_merge_no ON orderbook_deltas USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE trades (
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    size bigint NOT NULL,
    yes_price integer NOT NULL,
    no_price integer NOT NULL,
    taker_side boolean NOT NULL,
    trade_id text COLLATE "C" NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    connection uuid,
    sid integer,
    seq bigint,
    sent_at bigint,
    is_block boolean,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by exchange_ts width 86400000000*/;
CREATE UNIQUE INDEX trades_key ON trades (trade_id, exchange_ts) NULLS NOT DISTINCT;
CREATE INDEX trades_merge_no ON trades USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE tickers (
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    content_hash bigint NOT NULL,
    volume bigint NOT NULL,
    open_interest bigint NOT NULL,
    dollar_volume bigint NOT NULL,
    dollar_open_interest bigint NOT NULL,
    yes_bid_size bigint NOT NULL,
    yes_ask_size bigint NOT NULL,
    last_trade_size bigint NOT NULL,
    seq bigint NOT NULL,
    price integer NOT NULL,
    yes_bid integer NOT NULL,
    yes_ask integer NOT NULL,
    sid integer NOT NULL,
    connection uuid NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    sent_at bigint,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by exchange_ts width 3600000000*/;
CREATE UNIQUE INDEX tickers_key ON tickers (ticker, exchange_ts, content_hash) NULLS NOT DISTINCT;
CREATE INDEX tickers_merge_no ON tickers USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE orderbook_snapshots (
    observed_at bigint NOT NULL,
    received_at bigint NOT NULL,
    content_hash bigint NOT NULL,
    observed_is_sent boolean NOT NULL,
    is_first boolean NOT NULL,
    source text COLLATE "C" NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    connection uuid,
    sid integer,
    seq bigint,
    sent_at bigint,
    requested_at bigint,
    cut_exchange_ts bigint,
    cut_pos integer,
    yes bigint[],
    no bigint[],
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by observed_at width 86400000000*/;
CREATE UNIQUE INDEX orderbook_snapshots_key ON orderbook_snapshots (ticker, observed_at, gatherer, connection, sid, seq, requested_at) NULLS NOT DISTINCT;
CREATE INDEX orderbook_snapshots_merge_no ON orderbook_snapshots USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE snapshot_cuts (
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    seq bigint NOT NULL,
    deltas integer NOT NULL,
    sid integer NOT NULL,
    row_no integer NOT NULL,
    connection uuid NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE UNIQUE INDEX snapshot_cuts_key ON snapshot_cuts (gatherer, lane, batch_no, row_no, received_at) NULLS NOT DISTINCT;
CREATE INDEX snapshot_cuts_merge_no ON snapshot_cuts USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE market_lifecycle (
    observed_at bigint NOT NULL,
    received_at bigint NOT NULL,
    content_hash bigint NOT NULL,
    seq bigint NOT NULL,
    sid integer NOT NULL,
    observed_is_sent boolean NOT NULL,
    connection uuid NOT NULL,
    message_type text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    sent_at bigint,
    open_at bigint,
    close_at bigint,
    determined_at bigint,
    settled_at bigint,
    settlement_value integer,
    result text COLLATE "C",
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by observed_at width 86400000000*/;
CREATE UNIQUE INDEX market_lifecycle_key ON market_lifecycle (ticker, observed_at, gatherer, connection, sid, seq, event_type) NULLS NOT DISTINCT;
CREATE INDEX market_lifecycle_merge_no ON market_lifecycle USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE market_versions (
    updated_at bigint NOT NULL,
    received_at bigint NOT NULL,
    content_hash bigint NOT NULL,
    level text COLLATE "C" NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
);
CREATE UNIQUE INDEX market_versions_key ON market_versions (ticker, content_hash, updated_at) NULLS NOT DISTINCT;
CREATE INDEX market_versions_merge_no ON market_versions USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE exchange_status (
    received_at bigint NOT NULL,
    requested_at bigint NOT NULL,
    row_no integer NOT NULL,
    source text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    exchange_active boolean,
    trading_active boolean,
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE UNIQUE INDEX exchange_status_key ON exchange_status (gatherer, lane, batch_no, row_no, received_at) NULLS NOT DISTINCT;
CREATE INDEX exchange_status_merge_no ON exchange_status USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE rejected_frames (
    received_at bigint NOT NULL,
    row_no integer NOT NULL,
    is_truncated boolean NOT NULL,
    reason text COLLATE "C" NOT NULL,
    frame bytea NOT NULL,
    connection uuid,
    sid integer,
    seq bigint,
    sent_at bigint,
    ticker text COLLATE "C",
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE UNIQUE INDEX rejected_frames_key ON rejected_frames (gatherer, lane, batch_no, row_no, received_at) NULLS NOT DISTINCT;
CREATE INDEX rejected_frames_merge_no ON rejected_frames USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE listen_ranges (
    received_at bigint NOT NULL,
    seq_from bigint NOT NULL,
    seq_to bigint NOT NULL,
    sent_from bigint NOT NULL,
    sent_to bigint NOT NULL,
    margin bigint NOT NULL,
    sid integer NOT NULL,
    row_no integer NOT NULL,
    connection uuid NOT NULL,
    channel text COLLATE "C" NOT NULL,
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE UNIQUE INDEX listen_ranges_key ON listen_ranges (gatherer, lane, batch_no, row_no, received_at) NULLS NOT DISTINCT;
CREATE INDEX listen_ranges_merge_no ON listen_ranges USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE listen_opened (
    received_at bigint NOT NULL,
    seq bigint NOT NULL,
    sent_at bigint NOT NULL,
    margin bigint NOT NULL,
    stream integer NOT NULL,
    sid integer NOT NULL,
    row_no integer NOT NULL,
    connection uuid NOT NULL,
    channel text COLLATE "C" NOT NULL,
    slot text COLLATE "C" NOT NULL,
    ticker text COLLATE "C",
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE UNIQUE INDEX listen_opened_key ON listen_opened (gatherer, lane, batch_no, row_no, received_at) NULLS NOT DISTINCT;
CREATE INDEX listen_opened_merge_no ON listen_opened USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE listen_closed (
    received_at bigint NOT NULL,
    seq bigint NOT NULL,
    sent_at bigint NOT NULL,
    stream integer NOT NULL,
    sid integer NOT NULL,
    row_no integer NOT NULL,
    connection uuid NOT NULL,
    channel text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    ticker text COLLATE "C",
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE UNIQUE INDEX listen_closed_key ON listen_closed (gatherer, lane, batch_no, row_no, received_at) NULLS NOT DISTINCT;
CREATE INDEX listen_closed_merge_no ON listen_closed USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE gaps (
    received_at bigint NOT NULL,
    row_no integer NOT NULL,
    channel text COLLATE "C" NOT NULL,
    slot text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    ticker text COLLATE "C",
    from_ts bigint,
    to_ts bigint,
    received_from bigint,
    received_to bigint,
    seq_from bigint,
    seq_to bigint,
    rows_lost bigint,
    connection uuid,
    sid integer,
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    merge_no bigint NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE UNIQUE INDEX gaps_key ON gaps (gatherer, lane, batch_no, row_no, received_at) NULLS NOT DISTINCT;
CREATE INDEX gaps_merge_no ON gaps USING brin (merge_no) WITH (pages_per_range = 32, autosummarize = on);

-- The views of listening look these up by sid; both are rare rows.
CREATE INDEX listen_opened_sid ON listen_opened (connection, sid, seq) WHERE ticker IS NULL;
CREATE INDEX listen_closed_sid ON listen_closed (connection, sid, ticker, seq);
