-- The production database, level 2. Frozen: a later change is a new revision.

-- Lag: how long after its receipt a gatherer's row was merged, by minute of receipt -----------------------------------

-- Appended increments, one of each merge, gatherer, table and minute: rows by bucket of their lag. Bucket b holds lags
-- of more than 2^((b-1)/8) and up to 2^(b/8) milliseconds, bucket 0 all up to one. lag_max: the largest, microseconds.
CREATE TABLE merge_lags (
    merge_no bigint NOT NULL,
    gatherer smallint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    minute bigint NOT NULL,
    lag_max bigint NOT NULL,
    buckets smallint[] NOT NULL,
    counts bigint[] NOT NULL,
    CHECK (cardinality(buckets) = cardinality(counts))
);
CREATE INDEX merge_lags_minute ON merge_lags (minute, table_name);

-- What a bucket answers for, seconds: the geometric middle, at most 4.5 % off any lag in it (bucket 0: a millisecond).
CREATE FUNCTION lag_of_bucket(bucket smallint) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN power(2, (bucket - 0.5) / 8.0) / 1000;

CREATE VIEW lag_by_minute AS
SELECT gatherer, table_name, minute, max(below)::bigint AS rows,
       least(min(lag) FILTER (WHERE below >= 0.50 * total), max(lag_max)) AS p50_s,
       least(min(lag) FILTER (WHERE below >= 0.90 * total), max(lag_max)) AS p90_s,
       least(min(lag) FILTER (WHERE below >= 0.99 * total), max(lag_max)) AS p99_s,
       max(lag_max) AS max_s
  FROM (SELECT gatherer, table_name, minute, lag_of_bucket(bucket) AS lag, lag_max,
               sum(count) OVER (PARTITION BY gatherer, table_name, minute ORDER BY bucket) AS below,
               sum(count) OVER (PARTITION BY gatherer, table_name, minute) AS total
          FROM (SELECT gatherer, table_name, minute, bucket, sum(count) AS count, max(lag_max) / 1e6::float8 AS lag_max
                  FROM merge_lags CROSS JOIN LATERAL unnest(buckets, counts) AS b (bucket, count)
                 GROUP BY gatherer, table_name, minute, bucket) summed) ranked
 GROUP BY gatherer, table_name, minute;

-- Completeness: facts of a minute that some admitted gatherer lacks although all claim to have listened ---------------

-- by_all: facts that every one of `gatherers` delivered. facts: those, and the ones that at least one did not deliver
-- while all of them claim the fact's moment. unchecked: facts that one lacks and whose claims nobody looked up (the
-- search is bounded): they are in neither.
CREATE TABLE completeness (
    minute bigint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    gatherers smallint[] NOT NULL,
    facts bigint NOT NULL,
    by_all bigint NOT NULL,
    unchecked bigint NOT NULL,
    judged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (minute, table_name)
);

-- Listening, asked of one market and span -----------------------------------------------------------------------------

-- A market's openings are found by its name; ranges by their sid, the new ones by merge_no.
CREATE INDEX listen_opened_ticker ON listen_opened (ticker, channel, received_at);
CREATE INDEX listen_ranges_sid ON listen_ranges (connection, sid, merge_no);
CREATE INDEX gaps_span ON gaps (channel, (coalesce(to_ts, received_to, received_at)));

-- Ranges of merges up to listen_runs_progress, those of one sid joined where they touch: what a joined range says its
-- parts say together, so both may be read side by side and nothing is said twice. One market's answer would otherwise
-- read every range of its connection, as many as there were batches.
CREATE TABLE listen_runs (
    seq_from bigint NOT NULL,
    seq_to bigint NOT NULL,
    sent_to bigint NOT NULL,
    margin bigint NOT NULL,
    merge_to bigint NOT NULL,
    sid integer NOT NULL,
    connection uuid NOT NULL
);
CREATE INDEX listen_runs_sid ON listen_runs (connection, sid, sent_to);

CREATE TABLE listen_runs_progress (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    merge_no bigint NOT NULL DEFAULT 0
);
INSERT INTO listen_runs_progress DEFAULT VALUES;
