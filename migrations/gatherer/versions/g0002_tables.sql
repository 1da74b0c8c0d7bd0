-- The gatherer database, level 2. Frozen: a later change is a new revision.

-- Spans of the trade channel that nobody heard, and how far each was read back from the exchange's tape. No fact and no
-- claim: a healed span stays a gap of listening. ticker NULL: every market. Times are microseconds of exchange time;
-- the tape is read from its newest trade back, everything at or after reached_ts is stored.
CREATE TABLE trade_repairs (
    repair bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ticker text COLLATE "C",
    from_ts bigint NOT NULL,
    to_ts bigint NOT NULL,
    due_at bigint NOT NULL,
    reached_ts bigint NOT NULL,
    cause text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'healed', 'heard', 'partial', 'failed')),
    trades_read bigint NOT NULL DEFAULT 0,
    trades_stored bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    detail text COLLATE "C" NOT NULL DEFAULT '',
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
CREATE INDEX trade_repairs_open ON trade_repairs (due_at) WHERE state = 'open';
CREATE INDEX trade_repairs_to_ts ON trade_repairs (to_ts);

-- How a book rebuilt from one stream compared with the exchange's own answer. base: what it was rebuilt from;
-- matched_ts: exchange time of the last delta of the state that was equal.
CREATE TABLE book_checks (
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ticker text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL CHECK (outcome IN ('agree', 'disagree', 'unknown')),
    reason text COLLATE "C" NOT NULL DEFAULT '',
    base text COLLATE "C" NOT NULL DEFAULT '',
    requested_at bigint NOT NULL,
    received_at bigint NOT NULL,
    base_at bigint,
    matched_ts bigint,
    deltas integer NOT NULL DEFAULT 0,
    connection uuid,
    sid integer,
    detail text COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX book_checks_checked_at ON book_checks (checked_at);
CREATE INDEX book_checks_disagree ON book_checks (checked_at) WHERE outcome = 'disagree';

-- A repair asks which of some trades of one span are stored; the busiest markets of the last minutes are asked for too.
CREATE INDEX trades_exchange_ts ON trades USING brin (exchange_ts) WITH (pages_per_range = 32, autosummarize = on);

GRANT SELECT ON trade_repairs, book_checks TO kd_writer, kd_reader, kd_status;
GRANT INSERT, UPDATE, DELETE ON trade_repairs TO kd_writer;
GRANT INSERT, DELETE ON book_checks TO kd_writer;

UPDATE schema_level SET level = 2;
