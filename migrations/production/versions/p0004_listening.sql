-- The production database, level 4. Frozen: a later change is a new revision.

-- Ranges go with retention; a connection may live longer, and its streams begin where their opening lies. So listening
-- is read from the runs, which stay as long as their connection is heard, and from the ranges that are not joined yet.
CREATE OR REPLACE VIEW listening AS
WITH RECURSIVE marked AS (
    SELECT connection, sid, seq_from, seq_to, sent_to, margin,
           max(seq_to) OVER (PARTITION BY connection, sid ORDER BY seq_from, seq_to
                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
      FROM (SELECT connection, sid, seq_from, seq_to, sent_to, margin FROM listen_runs
             UNION ALL
            SELECT connection, sid, seq_from, seq_to, sent_to, margin FROM listen_ranges
             WHERE merge_no > (SELECT merge_no FROM listen_runs_progress)) told
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

UPDATE schema_level SET level = 4;
