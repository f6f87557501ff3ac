-- The newest open letters of all groups are found without passing those that were put back, so a
-- page of the archive costs the same however many there are. Building it blocks writes to the table,
-- not reads: about a second for each million letters. It may exist: built beforehand, concurrently.
CREATE INDEX IF NOT EXISTS dead_letters_open_newest ON streamjobs.dead_letters (id)
    WHERE redriven_at IS NULL AND NOT known_done;
