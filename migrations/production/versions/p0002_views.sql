-- Functions of production, level 2. Frozen: a later change is a new revision.

-- The rows of the view `listening` that speak of one market (ticker NULL: of whole channels only) on one channel and
-- overlap [from, to), found by index: OFFSET 0 keeps the planner from joining by reading whole tables. A sid whose last frame was sent a minute before the span says nothing of it.
CREATE FUNCTION listening_of(a_ticker text, a_channel text, a_from bigint, a_to bigint)
RETURNS TABLE (gatherer smallint, connection uuid, sid integer, channel text, ticker text, from_ts bigint, to_ts bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
WITH RECURSIVE own AS MATERIALIZED (
    SELECT o.gatherer, o.connection, o.sid, o.channel, o.ticker, o.seq, o.sent_at, o.margin, o.stream
      FROM (SELECT * FROM listen_opened
             WHERE ticker = a_ticker AND channel = a_channel AND received_at <= a_to + 86400000000
             UNION ALL
            SELECT * FROM listen_opened
             WHERE ticker IS NULL AND channel = a_channel AND channel <> 'orderbook_delta'
               AND received_at <= a_to + 86400000000) o
     WHERE EXISTS (SELECT FROM listen_runs r
                    WHERE r.connection = o.connection AND r.sid = o.sid AND r.sent_to > a_from - 60000000 OFFSET 0)
        OR EXISTS (SELECT FROM listen_ranges r
                    WHERE r.connection = o.connection AND r.sid = o.sid
                      AND r.merge_no > (SELECT p.merge_no FROM listen_runs_progress p) OFFSET 0)
), ranges AS (
    SELECT s.connection, s.sid, r.seq_from, r.seq_to, r.sent_to, r.margin
      FROM (SELECT DISTINCT o.connection, o.sid FROM own o) s
     CROSS JOIN LATERAL (SELECT * FROM listen_runs u
                          WHERE u.connection = s.connection AND u.sid = s.sid OFFSET 0) r
     UNION ALL
    SELECT s.connection, s.sid, r.seq_from, r.seq_to, r.sent_to, r.margin
      FROM (SELECT DISTINCT o.connection, o.sid FROM own o) s
     CROSS JOIN LATERAL (SELECT * FROM listen_ranges l
                          WHERE l.connection = s.connection AND l.sid = s.sid
                            AND l.merge_no > (SELECT p.merge_no FROM listen_runs_progress p) OFFSET 0) r
), marked AS (
    SELECT r.*, max(r.seq_to) OVER (PARTITION BY r.connection, r.sid ORDER BY r.seq_from, r.seq_to
                                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
      FROM ranges r
), numbered AS (
    SELECT m.*, count(*) FILTER (WHERE m.seq_from > m.reached + 1)
               OVER (PARTITION BY m.connection, m.sid ORDER BY m.seq_from, m.seq_to ROWS UNBOUNDED PRECEDING) AS island
      FROM marked m
), islands AS MATERIALIZED (
    SELECT n.connection, n.sid, min(n.seq_from) AS seq_from, max(n.seq_to) AS seq_to,
           (max(ARRAY[n.seq_to, n.sent_to]))[2] AS sent_to, max(n.margin) AS margin
      FROM numbered n
     GROUP BY n.connection, n.sid, n.island
), points AS (
    SELECT o.gatherer, o.connection, o.sid, o.channel, o.ticker, o.seq, o.sent_at, o.margin
      FROM own o
     WHERE NOT EXISTS (SELECT FROM listen_closed c
                        WHERE c.connection = o.connection AND c.sid = o.sid AND c.stream = o.stream
                          AND c.ticker IS NOT DISTINCT FROM o.ticker AND c.seq < o.seq OFFSET 0)
     UNION
    SELECT p.gatherer, p.connection, p.sid, p.channel, p.ticker, again.seq, again.sent_at, again.margin
      FROM points p
      JOIN islands i ON i.connection = p.connection AND i.sid = p.sid AND p.seq BETWEEN i.seq_from AND i.seq_to
      CROSS JOIN LATERAL (SELECT min(c.seq) AS seq FROM listen_closed c
                           WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker = p.ticker
                             AND c.seq >= p.seq) own_end
      CROSS JOIN LATERAL (SELECT min(c.seq) AS seq FROM listen_closed c
                           WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker IS NULL
                             AND c.seq >= p.seq) every
      CROSS JOIN LATERAL (SELECT o.seq, o.sent_at, o.margin FROM listen_opened o
                           WHERE o.connection = p.connection AND o.sid = p.sid AND o.ticker IS NULL
                             AND o.channel = 'orderbook_delta' AND o.seq > every.seq
                           ORDER BY o.seq, o.sent_at, o.margin LIMIT 1) again
     WHERE p.ticker IS NOT NULL
       AND every.seq <= i.seq_to AND (own_end.seq IS NULL OR every.seq < own_end.seq)
       AND NOT EXISTS (SELECT FROM listen_closed c
                        WHERE c.connection = p.connection AND c.sid = p.sid AND c.ticker IS NULL
                          AND c.seq > every.seq AND c.seq < again.seq OFFSET 0)
), spans AS (
    SELECT p.gatherer, p.connection, p.sid, p.channel, p.ticker,
           ceil_ms(p.sent_at + p.margin) AS from_ts,
           floor_ms(coalesce(ending.sent_at, i.sent_to) - i.margin) AS to_ts
      FROM points p
      JOIN islands i ON i.connection = p.connection AND i.sid = p.sid AND p.seq BETWEEN i.seq_from AND i.seq_to
      LEFT JOIN LATERAL (
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
SELECT DISTINCT s.gatherer, s.connection, s.sid, s.channel, s.ticker, s.from_ts, s.to_ts
  FROM spans s
 WHERE s.from_ts < s.to_ts AND s.from_ts < a_to AND s.to_ts > a_from
$$;

-- What of [from, to) no gatherer heard.
CREATE FUNCTION unheard_of(a_ticker text, a_channel text, a_from bigint, a_to bigint)
RETURNS TABLE (from_ts bigint, to_ts bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT lower(hole), upper(hole)
  FROM unnest(int8multirange(int8range(a_from, a_to))
              - coalesce((SELECT range_agg(int8range(l.from_ts, l.to_ts))
                            FROM listening_of(a_ticker, a_channel, a_from, a_to) l), '{}')) AS hole
$$;

-- Recorded causes that touch [from, to]: of the market, and of the slots it was heard in (ticker NULL: of the channel).
-- Where a cause does not say when, its times of receipt do.
CREATE FUNCTION gap_causes_of(a_ticker text, a_channel text, a_from bigint, a_to bigint)
RETURNS TABLE (gatherer smallint, slot text, ticker text, reason text, detail text, from_ts bigint, to_ts bigint, rows_lost bigint)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT g.gatherer, g.slot, g.ticker, g.reason, g.detail, coalesce(g.from_ts, g.received_from, g.received_at),
       coalesce(g.to_ts, g.received_to, g.received_at), g.rows_lost
  FROM gaps g
 WHERE g.channel = a_channel
   AND coalesce(g.to_ts, g.received_to, g.received_at) >= a_from
   AND coalesce(g.from_ts, g.received_from, g.received_at) <= a_to
   AND g.received_at >= a_from - 86400000000
   AND (a_ticker IS NULL OR g.ticker = a_ticker
        OR (g.ticker IS NULL
            AND (g.slot = '' OR g.channel <> 'orderbook_delta'
                 OR (g.gatherer, g.slot) IN (SELECT o.gatherer, o.slot FROM listen_opened o
                                              WHERE o.ticker = a_ticker AND o.channel = a_channel))))
$$;
