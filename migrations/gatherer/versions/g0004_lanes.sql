-- The gatherer database, level 4. Frozen: a later change is a new revision.

-- Tickers go over lanes of their own, so that nothing of them ever holds a trade.
ALTER TABLE lanes DROP CONSTRAINT lanes_family_check;
ALTER TABLE lanes ADD CONSTRAINT lanes_family_check CHECK (family IN ('deltas', 'trades', 'tickers', 'rest'));

-- A process that runs goes on writing its three families. One of an older level that begins, or connects anew to read
-- all lanes, would stop at a family it does not know: it waits until it is replaced, and says so.
UPDATE schema_level SET level = 4, oldest_code_level = 4;
