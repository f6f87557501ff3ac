-- The last attempts at the job, the first one first, as an array of objects: how each ended, when it began
-- and how long it ran, in which process, and its error. NULL where none is known.
ALTER TABLE streamjobs.dead_letters ADD COLUMN history jsonb;

-- With the new column, which a view does not get by itself.
CREATE OR REPLACE VIEW streamjobs.open_dead_letters AS
    SELECT * FROM streamjobs.dead_letters WHERE redriven_at IS NULL AND NOT known_done;
