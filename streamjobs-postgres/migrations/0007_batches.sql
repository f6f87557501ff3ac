-- Batches with completion: sets of jobs, and the events that say that all of them have ended.
CREATE TABLE streamjobs.batches (
    id           text        COLLATE "C" PRIMARY KEY,
    opened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Every end of a member changes it. So a transaction that waited for the row sees what the one before it did,
    -- or is refused where it could not.
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- From when on only unfinished members add members.
    closed_at    timestamptz,
    -- When every member had ended, and when none of them was dead any more.
    completed_at timestamptz,
    succeeded_at timestamptz
-- Each end of a member writes the row of its batch anew: room on its page keeps the indexes out of it.
) WITH (fillfactor = 50);

CREATE INDEX batches_unfinished ON streamjobs.batches (opened_at) WHERE completed_at IS NULL;
CREATE INDEX batches_completed ON streamjobs.batches (completed_at) WHERE completed_at IS NOT NULL;

-- What is published when a batch has completed, and when it has succeeded: byte for byte.
CREATE TABLE streamjobs.batch_events (
    batch_id     text        COLLATE "C" NOT NULL REFERENCES streamjobs.batches (id) ON DELETE CASCADE,
    kind         text        NOT NULL CHECK (kind IN ('completed', 'succeeded')),
    stream       text        NOT NULL,
    event_id     text        NOT NULL,
    field_names  bytea[]     NOT NULL,
    field_values bytea[]     NOT NULL,
    PRIMARY KEY (batch_id, kind),
    CHECK (cardinality(field_names) = cardinality(field_values))
);

-- A job: one group's work on one event. A set, and no count: an end that is told twice changes nothing.
CREATE TABLE streamjobs.batch_members (
    batch_id   text        COLLATE "C" NOT NULL REFERENCES streamjobs.batches (id) ON DELETE CASCADE,
    group_name text        COLLATE "C" NOT NULL,
    event_id   text        COLLATE "C" NOT NULL,
    ended_at   timestamptz,
    -- Ended as a dead letter. Done after a redrive, it is dead no more.
    dead       boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (batch_id, group_name, event_id),
    CHECK (ended_at IS NOT NULL OR NOT dead)
);

CREATE INDEX batch_members_by_event ON streamjobs.batch_members (event_id, group_name);
CREATE INDEX batch_members_unfinished ON streamjobs.batch_members (batch_id) WHERE ended_at IS NULL;
CREATE INDEX batch_members_dead ON streamjobs.batch_members (batch_id) WHERE dead;

-- Batches that somebody may have to look at: open, or with members that have not ended.
CREATE VIEW streamjobs.unfinished_batches AS
    SELECT b.id, b.opened_at, b.changed_at, b.closed_at,
           count(m.event_id) AS members,
           count(m.event_id) FILTER (WHERE m.ended_at IS NULL) AS unfinished,
           count(m.event_id) FILTER (WHERE m.dead) AS dead
    FROM streamjobs.batches b LEFT JOIN streamjobs.batch_members m ON m.batch_id = b.id
    WHERE b.completed_at IS NULL
    GROUP BY b.id;
