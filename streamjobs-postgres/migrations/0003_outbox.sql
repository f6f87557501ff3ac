-- Events that were published inside of a transaction and have not reached their stream yet.
CREATE TABLE streamjobs.outbox (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream       text        NOT NULL,
    event_id     text        NOT NULL,
    -- The fields of the entry, byte for byte.
    field_names  bytea[]     NOT NULL,
    field_values bytea[]     NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (cardinality(field_names) = cardinality(field_values))
);

CREATE INDEX outbox_by_stream ON streamjobs.outbox (stream, id);

-- How much waits for each stream, and for how long the oldest.
CREATE VIEW streamjobs.outbox_backlog AS
    SELECT stream, count(*) AS events, min(published_at) AS oldest,
           clock_timestamp() - min(published_at) AS age
    FROM streamjobs.outbox
    GROUP BY stream;
