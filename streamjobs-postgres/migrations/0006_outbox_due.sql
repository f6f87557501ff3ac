-- When an event is due; NULL for one that is published at once. The relay schedules it, so it waits in
-- the stream's Redis and not here.
ALTER TABLE streamjobs.outbox ADD COLUMN due_at timestamptz;
