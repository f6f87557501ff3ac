-- The newest open letters of all groups are found without passing those that were put back, so a
-- page of the archive costs the same however many there are. Building it blocks writes to the table,
-- not reads: about a second for each million letters. It may exist: built beforehand, concurrently.
-- One whose concurrent build failed is not used by any query, and is built anew.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_index
               WHERE indexrelid = to_regclass('streamjobs.dead_letters_open_newest')
                   AND NOT indisvalid) THEN
        DROP INDEX streamjobs.dead_letters_open_newest;
    END IF;
END $$;
CREATE INDEX IF NOT EXISTS dead_letters_open_newest ON streamjobs.dead_letters (id)
    WHERE redriven_at IS NULL AND NOT known_done;
