-- The gatherer database, level 3. Frozen: a later change is a new revision.

-- A market whose slot has changed stays in the list of the slot it came from until it is heard in the new one.
-- moved_from: that slot; moved_at: since when, microseconds of the database's clock.
ALTER TABLE markets ADD COLUMN moved_from text COLLATE "C", ADD COLUMN moved_at bigint;
CREATE INDEX markets_moved_from ON markets (moved_from) WHERE moved_from IS NOT NULL;

-- /debug/markets pages through one status at a time.
CREATE INDEX markets_status ON markets (status, ticker);

UPDATE schema_level SET level = 3;
