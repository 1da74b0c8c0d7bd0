-- The gatherer database, level 5. Frozen: a later change is a new revision.

-- Connections a shard has, or may open, beyond one for each of its rows in slot_assignments: parts of slots that one
-- connection cannot carry, and connections whose row is gone before they are.
ALTER TABLE shards ADD COLUMN extra_connections integer NOT NULL DEFAULT 0 CHECK (extra_connections >= 0);

-- Whoever plans counts a withdrawn row's connection until its shard says that it is closed, and knows of slots that the
-- configuration has no more which of them still have markets.
GRANT UPDATE (extra_connections) ON shards TO kd_planner;
GRANT SELECT (slot, wanted, moved_from) ON markets TO kd_planner;

UPDATE schema_level SET level = 5;
