-- Views of production, level 1. Frozen: a later change is a new revision.

-- Listening: what ranges, openings and closings prove together; libs/marketdata/listening.py says the same -----------

CREATE VIEW listening AS
WITH RECURSIVE marked AS (
    SELECT connection, sid, seq_from, seq_to, sent_to, margin,
           max(seq_to) OVER (PARTITION BY connection, sid ORDER BY seq_from, seq_to
                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
      FROM listen_ranges
), numbered AS (
    SELECT *,
           count(*) FILTER (WHERE seq_from > reached + 1)
               OVER (PARTITION BY connection, sid ORDER BY seq_from, seq_to ROWS UNBOUNDED PRECEDING) AS island
      FROM marked
), islands AS MATERIALIZED (
    -- Ranges join where the next begins at most one seq after the last; the last frame's sent_at, the widest margin.
    SELECT connection, sid, min(seq_from) AS seq_from, max(seq_to) AS seq_to,
           (max(ARRAY[seq_to, sent_to]))[2] AS sent_to, max(margin) AS margin
      FROM numbered
     GROUP BY connection, sid, island
), points AS (
    -- Where a stream begins to be heard: at its own opening ...
    SELECT o.gatherer, o.connection, o.sid, o.channel, o.ticker, o.seq, o.sent_at, o.margin
      FROM listen_opened o
     WHERE NOT (o.channel = 'orderbook_delta' AND o.ticker IS NULL)
       AND NOT EXISTS (SELECT FROM listen_closed c
                        WHERE c.connection = o.connection AND c.sid = o.sid AND c.stream = o.stream
                          AND c.ticker IS NOT DISTINCT FROM o.ticker AND c.seq < o.seq)
     UNION
    -- ... and where all streams of an order-book sid go on after they were closed together.
    SELECT p.gatherer, p.connection, p.sid, p.channel, p.ticker, again.seq, again.sent_at, again.margin
      FROM points p
      JOIN islands i ON i.connection = p.connection AND i.sid = p.sid AND p.seq BETWEEN i.seq_from AND i.seq_to
      CROSS JOIN LATERAL (SELECT min(c.seq) AS seq FROM listen_closed c
                           WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker = p.ticker
                             AND c.seq >= p.seq) own
      CROSS JOIN LATERAL (SELECT min(c.seq) AS seq FROM listen_closed c
                           WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker IS NULL
                             AND c.seq >= p.seq) every
      CROSS JOIN LATERAL (SELECT o.seq, o.sent_at, o.margin FROM listen_opened o
                           WHERE o.connection = p.connection AND o.sid = p.sid AND o.ticker IS NULL
                             AND o.channel = 'orderbook_delta' AND o.seq > every.seq
                           ORDER BY o.seq, o.sent_at, o.margin LIMIT 1) again
     WHERE p.ticker IS NOT NULL
       AND every.seq <= i.seq_to AND (own.seq IS NULL OR every.seq < own.seq)
       AND NOT EXISTS (SELECT FROM listen_closed c
                        WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker IS NULL
                          AND c.seq > every.seq AND c.seq < again.seq)
), spans AS (
    SELECT p.gatherer, p.connection, p.sid, p.channel, p.ticker,
           ceil_ms(p.sent_at + p.margin) AS from_ts,
           floor_ms(coalesce(ending.sent_at, i.sent_to) - i.margin) AS to_ts
      FROM points p
      JOIN islands i ON i.connection = p.connection AND i.sid = p.sid AND p.seq BETWEEN i.seq_from AND i.seq_to
      LEFT JOIN LATERAL (
               -- Of closings at one seq, that of all streams says when; of equals, the earliest.
               SELECT first.sent_at
                 FROM ((SELECT c.seq, c.sent_at, 1 AS rank FROM listen_closed c
                         WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker = p.ticker
                           AND c.seq >= p.seq AND c.seq <= i.seq_to
                         ORDER BY c.seq, c.sent_at LIMIT 1)
                       UNION ALL
                       (SELECT c.seq, c.sent_at, 0 FROM listen_closed c
                         WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker IS NULL
                           AND c.seq >= p.seq AND c.seq <= i.seq_to
                         ORDER BY c.seq, c.sent_at LIMIT 1)) first
                ORDER BY first.seq, first.rank LIMIT 1) ending ON true
)
SELECT DISTINCT gatherer, connection, sid, channel, ticker, from_ts, to_ts
  FROM spans
 WHERE from_ts < to_ts;

-- Holes of one gatherer, between its first and last claim of a channel and ticker.
CREATE VIEW listening_gaps AS
SELECT gatherer, channel, ticker, lower(hole) AS from_ts, upper(hole) AS to_ts
  FROM (SELECT gatherer, channel, ticker, int8multirange(int8range(min(from_ts), max(to_ts))) - range_agg(int8range(from_ts, to_ts)) AS holes
          FROM listening
         GROUP BY gatherer, channel, ticker) heard
 CROSS JOIN LATERAL unnest(holes) AS hole;

-- Spans in which no gatherer listened, between the first and the last claim of any of them.
CREATE VIEW production_gaps AS
SELECT channel, ticker, lower(hole) AS from_ts, upper(hole) AS to_ts
  FROM (SELECT channel, ticker, int8multirange(int8range(min(from_ts), max(to_ts))) - range_agg(int8range(from_ts, to_ts)) AS holes
          FROM listening
         GROUP BY channel, ticker) heard
 CROSS JOIN LATERAL unnest(holes) AS hole;

-- Coverage: increments summed; late copies are of facts that are counted already ---------------------------------

CREATE VIEW coverage_by_minute AS
SELECT table_name, minute, gatherers, coalesce(sum(facts) FILTER (WHERE NOT is_late), 0)::bigint AS facts,
       coalesce(sum(facts) FILTER (WHERE is_late), 0)::bigint AS late_facts
  FROM coverage
 GROUP BY table_name, minute, gatherers;

-- Lifecycle: observations of different streams joined to facts ---------------------------------------------------------

-- Returns the first observation of each fact. An observation joins the nearest earlier fact of equal content whose first
-- observation is less than 10 s older and which this stream has not seen yet; else it is a fact of its own. The nearest,
-- not the earliest: a stream that begins in the middle of a series must not push every later one to its neighbour.
CREATE FUNCTION market_lifecycle_first_observations() RETURNS SETOF market_lifecycle
LANGUAGE plpgsql STABLE AS $$
DECLARE
    row market_lifecycle;
    last market_lifecycle;
    stream text;
    started bigint[] := '{}';
    streams text[] := '{}';
    joined boolean;
BEGIN
    FOR row IN SELECT * FROM market_lifecycle
                ORDER BY content_hash, ticker, event_type, observed_at, connection, sid, seq LOOP
        IF (row.content_hash, row.ticker, row.event_type)
           IS DISTINCT FROM (last.content_hash, last.ticker, last.event_type) THEN
            started := '{}';
            streams := '{}';
        END IF;
        last := row;
        WHILE cardinality(started) > 0 AND started[1] <= row.observed_at - 10000000 LOOP
            started := started[2:];
            streams := streams[2:];
        END LOOP;
        stream := ' ' || row.connection || '/' || row.sid || ' ';
        joined := false;
        FOR i IN REVERSE cardinality(started) .. 1 LOOP
            IF position(stream IN streams[i]) = 0 THEN
                streams[i] := streams[i] || stream;
                joined := true;
                EXIT;
            END IF;
        END LOOP;
        IF NOT joined THEN
            started := started || row.observed_at;
            streams := streams || stream;
            RETURN NEXT row;
        END IF;
    END LOOP;
END
$$;

CREATE VIEW market_lifecycle_facts AS
SELECT * FROM market_lifecycle_first_observations();

-- Catalogue: the newest version of each series, event and market -------------------------------------------------------

CREATE VIEW newest_market_versions AS
SELECT DISTINCT ON (level, ticker) level, ticker, updated_at, content_hash, body::jsonb AS body
  FROM market_versions
 ORDER BY level, ticker, updated_at DESC, received_at DESC, merge_no DESC;

CREATE VIEW series AS
SELECT ticker, body ->> 'title' AS title, body ->> 'category' AS category, body ->> 'frequency' AS frequency,
       updated_at, content_hash, body
  FROM newest_market_versions
 WHERE level = 'series';

CREATE VIEW events AS
SELECT ticker, body ->> 'series_ticker' AS series_ticker, body ->> 'title' AS title, body ->> 'sub_title' AS sub_title,
       body ->> 'strike_date' AS strike_date, updated_at, content_hash, body
  FROM newest_market_versions
 WHERE level = 'event';

CREATE VIEW markets AS
SELECT ticker, body ->> 'event_ticker' AS event_ticker, body ->> 'market_type' AS market_type,
       body ->> 'status' AS status, body ->> 'yes_sub_title' AS yes_sub_title, body ->> 'no_sub_title' AS no_sub_title,
       body ->> 'open_time' AS open_time, body ->> 'close_time' AS close_time, body ->> 'result' AS result,
       updated_at, content_hash, body
  FROM newest_market_versions
 WHERE level = 'market';

-- Books: only bids are stored; a no bid at p is a yes ask at 1 - p ------------------------------------------------------

-- Turns one side's bid ladder into the other side's ask ladder, ascending by price.
CREATE FUNCTION asks_of_bids(bids bigint[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN cardinality(bids) = 0 THEN bids
                ELSE (SELECT array_agg(ARRAY[100000 - bids[level][1], bids[level][2]] ORDER BY level DESC)
                        FROM generate_series(1, array_length(bids, 1)) AS level) END;

CREATE VIEW orderbook_snapshots_asks AS
SELECT s.*, asks_of_bids(s.no) AS yes_asks, asks_of_bids(s.yes) AS no_asks
  FROM orderbook_snapshots s;

CREATE VIEW table_counts AS
SELECT 'orderbook_deltas' AS table_name, count(*) AS rows FROM orderbook_deltas
UNION ALL
SELECT 'trades' AS table_name, count(*) AS rows FROM trades
UNION ALL
SELECT 'tickers' AS table_name, count(*) AS rows FROM tickers
UNION ALL
SELECT 'orderbook_snapshots' AS table_name, count(*) AS rows FROM orderbook_snapshots
UNION ALL
SELECT 'snapshot_cuts' AS table_name, count(*) AS rows FROM snapshot_cuts
UNION ALL
SELECT 'market_lifecycle' AS table_name, count(*) AS rows FROM market_lifecycle
UNION ALL
SELECT 'market_versions' AS table_name, count(*) AS rows FROM market_versions
UNION ALL
SELECT 'exchange_status' AS table_name, count(*) AS rows FROM exchange_status
UNION ALL
SELECT 'rejected_frames' AS table_name, count(*) AS rows FROM rejected_frames
UNION ALL
SELECT 'listen_ranges' AS table_name, count(*) AS rows FROM listen_ranges
UNION ALL
SELECT 'listen_opened' AS table_name, count(*) AS rows FROM listen_opened
UNION ALL
SELECT 'listen_closed' AS table_name, count(*) AS rows FROM listen_closed
UNION ALL
SELECT 'gaps' AS table_name, count(*) AS rows FROM gaps;
