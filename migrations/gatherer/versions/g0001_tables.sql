-- The gatherer database, level 1. Frozen: a later change is a new revision.
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

CREATE TABLE gatherer_identity (
    identity uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    zone text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX gatherer_identity_one ON gatherer_identity ((true));

-- Lanes and the ledger -------------------------------------------------------------------------------------------

CREATE SEQUENCE batch_ids AS bigint;

CREATE TABLE lanes (
    lane uuid PRIMARY KEY,
    family text COLLATE "C" NOT NULL CHECK (family IN ('deltas', 'trades', 'rest')),
    process text COLLATE "C" NOT NULL,
    instance uuid NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at timestamptz,
    last_batch_no bigint
);

CREATE TABLE ingest_batches (
    lane uuid NOT NULL,
    batch_no bigint NOT NULL,
    batch_id bigint NOT NULL DEFAULT nextval('batch_ids'),
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    schema_version integer NOT NULL,
    table_names text[] COLLATE "C" NOT NULL,
    row_counts integer[] NOT NULL,
    row_hashes bigint[] NOT NULL,
    times_from bigint[] NOT NULL,
    times_to bigint[] NOT NULL,
    sids text NOT NULL DEFAULT '[]',
    dropped_at timestamptz,
    PRIMARY KEY (lane, batch_no)
);
CREATE INDEX ingest_batches_batch_id ON ingest_batches (batch_id);

CREATE TABLE lane_releases (
    lane uuid PRIMARY KEY,
    released_batch_no bigint NOT NULL,
    merge_no bigint NOT NULL
);

CREATE TABLE lane_acknowledgements (
    lane uuid PRIMARY KEY,
    batch_no bigint NOT NULL,
    merge_no bigint NOT NULL,
    acknowledged_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Control --------------------------------------------------------------------------------------------------------

CREATE TABLE shards (
    shard text COLLATE "C" PRIMARY KEY,
    instance uuid NOT NULL,
    template_hash text COLLATE "C" NOT NULL DEFAULT '',
    capacity integer NOT NULL,
    load double precision NOT NULL DEFAULT 0,
    draining boolean NOT NULL DEFAULT false,
    epoch bigint NOT NULL DEFAULT 0,
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);

CREATE TABLE slot_assignments (
    slot text COLLATE "C" NOT NULL,
    shard text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('assigned', 'live', 'releasing')),
    listening_from bigint,
    assigned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (slot, shard)
);

CREATE TABLE planner (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder text COLLATE "C" NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO planner DEFAULT VALUES;

CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    holder uuid NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL
);

-- Catalogue ------------------------------------------------------------------------------------------------------

CREATE TABLE series (
    ticker text COLLATE "C" PRIMARY KEY,
    body text NOT NULL,
    content_hash bigint NOT NULL,
    updated_at bigint NOT NULL
);

CREATE TABLE events (
    ticker text COLLATE "C" PRIMARY KEY,
    series_ticker text COLLATE "C" NOT NULL,
    body text NOT NULL,
    content_hash bigint NOT NULL,
    updated_at bigint NOT NULL
);

CREATE TABLE markets (
    ticker text COLLATE "C" PRIMARY KEY,
    event_ticker text COLLATE "C" NOT NULL,
    series_ticker text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    is_combo boolean NOT NULL,
    wanted boolean NOT NULL,
    slot text COLLATE "C",
    open_at bigint,
    close_at bigint,
    created_at bigint,
    updated_at bigint NOT NULL,
    content_hash bigint NOT NULL,
    body text NOT NULL
);
CREATE INDEX markets_slot ON markets (slot) WHERE wanted;
CREATE INDEX markets_event ON markets (event_ticker);

CREATE TABLE slot_versions (
    slot text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL
);

CREATE TABLE registry_state (
    key text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- Facts: append-only, no unique constraints; duplicates are legal here ---------------------------------------------

CREATE TABLE orderbook_deltas (
    batch_id bigint NOT NULL,
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
    pos integer
) /*partition by exchange_ts width 3600000000*/;
CREATE INDEX orderbook_deltas_batch_id ON orderbook_deltas USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE trades (
    batch_id bigint NOT NULL,
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
    is_block boolean
) /*partition by exchange_ts width 86400000000*/;
CREATE INDEX trades_batch_id ON trades USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE tickers (
    batch_id bigint NOT NULL,
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
    sent_at bigint
) /*partition by exchange_ts width 3600000000*/;
CREATE INDEX tickers_batch_id ON tickers USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE orderbook_snapshots (
    batch_id bigint NOT NULL,
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
    no bigint[]
) /*partition by observed_at width 86400000000*/;
CREATE INDEX orderbook_snapshots_batch_id ON orderbook_snapshots USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE snapshot_cuts (
    batch_id bigint NOT NULL,
    exchange_ts bigint NOT NULL,
    received_at bigint NOT NULL,
    seq bigint NOT NULL,
    deltas integer NOT NULL,
    sid integer NOT NULL,
    row_no integer NOT NULL,
    connection uuid NOT NULL,
    ticker text COLLATE "C" NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE INDEX snapshot_cuts_batch_id ON snapshot_cuts USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE market_lifecycle (
    batch_id bigint NOT NULL,
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
    result text COLLATE "C"
) /*partition by observed_at width 86400000000*/;
CREATE INDEX market_lifecycle_batch_id ON market_lifecycle USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE market_versions (
    batch_id bigint NOT NULL,
    updated_at bigint NOT NULL,
    received_at bigint NOT NULL,
    content_hash bigint NOT NULL,
    level text COLLATE "C" NOT NULL,
    ticker text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE INDEX market_versions_batch_id ON market_versions USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE exchange_status (
    batch_id bigint NOT NULL,
    received_at bigint NOT NULL,
    requested_at bigint NOT NULL,
    row_no integer NOT NULL,
    source text COLLATE "C" NOT NULL,
    body text COLLATE "C" NOT NULL,
    exchange_active boolean,
    trading_active boolean
) /*partition by received_at width 86400000000*/;
CREATE INDEX exchange_status_batch_id ON exchange_status USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE rejected_frames (
    batch_id bigint NOT NULL,
    received_at bigint NOT NULL,
    row_no integer NOT NULL,
    is_truncated boolean NOT NULL,
    reason text COLLATE "C" NOT NULL,
    frame bytea NOT NULL,
    connection uuid,
    sid integer,
    seq bigint,
    sent_at bigint,
    ticker text COLLATE "C"
) /*partition by received_at width 86400000000*/;
CREATE INDEX rejected_frames_batch_id ON rejected_frames USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE listen_ranges (
    batch_id bigint NOT NULL,
    received_at bigint NOT NULL,
    seq_from bigint NOT NULL,
    seq_to bigint NOT NULL,
    sent_from bigint NOT NULL,
    sent_to bigint NOT NULL,
    margin bigint NOT NULL,
    sid integer NOT NULL,
    row_no integer NOT NULL,
    connection uuid NOT NULL,
    channel text COLLATE "C" NOT NULL
) /*partition by received_at width 86400000000*/;
CREATE INDEX listen_ranges_batch_id ON listen_ranges USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE listen_opened (
    batch_id bigint NOT NULL,
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
    ticker text COLLATE "C"
) /*partition by received_at width 86400000000*/;
CREATE INDEX listen_opened_batch_id ON listen_opened USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE listen_closed (
    batch_id bigint NOT NULL,
    received_at bigint NOT NULL,
    seq bigint NOT NULL,
    sent_at bigint NOT NULL,
    stream integer NOT NULL,
    sid integer NOT NULL,
    row_no integer NOT NULL,
    connection uuid NOT NULL,
    channel text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    ticker text COLLATE "C"
) /*partition by received_at width 86400000000*/;
CREATE INDEX listen_closed_batch_id ON listen_closed USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE gaps (
    batch_id bigint NOT NULL,
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
    sid integer
) /*partition by received_at width 86400000000*/;
CREATE INDEX gaps_batch_id ON gaps USING brin (batch_id) WITH (pages_per_range = 32, autosummarize = on);

-- The views of listening look these up by sid; both are rare rows.
CREATE INDEX listen_opened_sid ON listen_opened (connection, sid, seq) WHERE ticker IS NULL;
CREATE INDEX listen_closed_sid ON listen_closed (connection, sid, ticker, seq);
