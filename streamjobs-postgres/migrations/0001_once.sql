-- What a group has done, and what somebody is doing now: one row for each event and group.
--
-- A row is written in the same transaction as the effects of the handler (`Once`), or before and
-- after work outside of the database (`OnceMark`). It holds no payload.
CREATE TABLE streamjobs.once (
    group_name   text        NOT NULL,
    -- The event id, or `sha256:` and the hash of one that is longer than 64 bytes.
    key          text        COLLATE "C" NOT NULL,
    -- The stream and the entry that the event was published as.
    stream       text        NOT NULL,
    entry_id     text        NOT NULL,
    -- The time in that entry's id.
    published_at timestamptz NOT NULL,
    -- The first 16 bytes of the payload's SHA-256: tells two payloads under one event id apart.
    payload_hash bytea       NOT NULL,
    -- Who works on it, as long as it is not done.
    owner        text,
    -- From when on somebody else may take it over, as long as it is not done.
    expires_at   timestamptz,
    -- When it was done; NULL as long as it is not.
    done_at      timestamptz,
    PRIMARY KEY (group_name, key),
    CHECK (done_at IS NOT NULL OR (owner IS NOT NULL AND expires_at IS NOT NULL))
);

-- One index for two questions, since every guarded job pays for each. Old rows are found in batches,
-- for each group and stream by itself: how long rows have to stay is a matter of what their group has
-- not finished. And whether a job was done whose payload is gone, and with it the event id, is told
-- by its entry. Entries rise, so the index grows at its end.
CREATE INDEX once_by_publication ON streamjobs.once (group_name, stream, published_at)
    WHERE done_at IS NOT NULL;
CREATE INDEX once_unfinished ON streamjobs.once (group_name, stream, expires_at)
    WHERE done_at IS NULL;
