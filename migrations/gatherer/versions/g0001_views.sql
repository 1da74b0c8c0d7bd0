-- Views of a gatherer, level 1. Frozen: a later change is a new revision.

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
    SELECT o.connection, o.sid, o.channel, o.ticker, o.seq, o.sent_at, o.margin
      FROM listen_opened o
     WHERE NOT (o.channel = 'orderbook_delta' AND o.ticker IS NULL)
       AND NOT EXISTS (SELECT FROM listen_closed c
                        WHERE c.connection = o.connection AND c.sid = o.sid AND c.stream = o.stream
                          AND c.ticker IS NOT DISTINCT FROM o.ticker AND c.seq < o.seq)
     UNION
    -- ... and where all streams of an order-book sid go on after they were closed together.
    SELECT p.connection, p.sid, p.channel, p.ticker, again.seq, again.sent_at, again.margin
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
    SELECT p.connection, p.sid, p.channel, p.ticker,
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
SELECT DISTINCT connection, sid, channel, ticker, from_ts, to_ts
  FROM spans
 WHERE from_ts < to_ts;

-- Holes between the first and the last claim of a channel and ticker.
CREATE VIEW listening_gaps AS
SELECT channel, ticker, lower(hole) AS from_ts, upper(hole) AS to_ts
  FROM (SELECT channel, ticker, int8multirange(int8range(min(from_ts), max(to_ts))) - range_agg(int8range(from_ts, to_ts)) AS holes
          FROM listening
         GROUP BY channel, ticker) heard
 CROSS JOIN LATERAL unnest(holes) AS hole;

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
