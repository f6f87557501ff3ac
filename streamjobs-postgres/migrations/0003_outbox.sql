-- Events that were published inside of a transaction and have not reached their stream yet.
CREATE TABLE streamjobs.outbox (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream       text        COLLATE "C" NOT NULL,
    -- For those who look. The relay goes by the fields.
    event_id     text        NOT NULL,
    -- The fields of the entry, byte for byte.
    field_names  bytea[]     NOT NULL,
    field_values bytea[]     NOT NULL,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Why it is never published; NULL as long as it may be. Set to NULL it is tried again.
    refused      text,
    CHECK (cardinality(field_names) = cardinality(field_values))
-- Rows live for moments, and the dead ones stand before the living: a share of the table would be
-- too late for cleaning up.
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- Not worth compressing for moments, and so known by size without being read.
ALTER TABLE streamjobs.outbox ALTER COLUMN field_values SET STORAGE EXTERNAL;

CREATE INDEX outbox_waiting ON streamjobs.outbox (stream, id) WHERE refused IS NULL;
CREATE INDEX outbox_refused ON streamjobs.outbox (id) WHERE refused IS NOT NULL;

-- How much waits for each stream, and for how long the oldest; and what will never be published.
CREATE VIEW streamjobs.outbox_backlog AS
    SELECT stream,
           count(*) FILTER (WHERE refused IS NULL) AS events,
           min(published_at) FILTER (WHERE refused IS NULL) AS oldest,
           clock_timestamp() - min(published_at) FILTER (WHERE refused IS NULL) AS age,
           count(*) FILTER (WHERE refused IS NOT NULL) AS refused
    FROM streamjobs.outbox
    GROUP BY stream;
